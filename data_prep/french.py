"""Is a word in Latin letters French, Arabizi or neither? By word frequencies of the library wordfreq, and by neighbours.

wordfreq (Speer 2022) lists how often a word occurs in French and in English subtitles, news, books, Wikipedia and posts;
the lists come with the package. What they say of a word alone is not enough for the shortest: "la" and "ou" are
French for "the" and "or", and Arabizi for "no" and "and". Those go with the words around them.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from math import log10
from typing import Literal

Language = Literal["french", "arabizi", "other"]

# Zipf values: log10 of occurrences in a thousand million words. Chosen on the labelled words of tests/latin_words.tsv.
COMMON = 3.3
"""From here on a word of the French list is French; below, the list is full of names and of words of other languages."""
LONG_COMMON, LONG = 2.6, 6
"""What is enough for a word of so many letters: chance makes short ones."""
ACCENTED_COMMON = 2.2
"""What is enough for a word with a French accent."""
SHORT_COMMON, SHORT = 3.9, 3
"""What is needed for words of so few letters."""
MARGIN = 0.4
"""How much more frequent a word must be in French than in English: ya, el, fi, ana, Samsung, Allah are as frequent in both."""
SHARED, SHARED_MARGIN = 4.2, -0.6
"""Words of more than SHORT letters that both languages have, such as chance, question, sauce, are French from here on."""
FRENCH_ANYWAY = 6.0
"""A word so frequent is French whatever English has: a, l, s."""
ENGLISH, ENGLISH_MARGIN = 3.0, 0.5
"""From here on a word of the English list that French has less of is English."""
CLITIC = 2
"""Letters up to which a French word is told by its neighbours."""

_ELIDED = re.compile(r"(?:[ldjcnstm]|qu|jusqu|lorsqu|puisqu|quoiqu)'(?=.)")
_PARTS = re.compile(r"['_-]+")
_ACCENT = re.compile("[àâçèéêëîïôùûœ]")
_MODEL = re.compile(r"[a-z]\d+|[a-z]{1,2}\d\d+[a-z]?|\d+[a-z]|\d\d+[a-z]+")
"""A30, y7, 4g, 128ko: names of things and measures."""
_ARABIZI_DIGIT = re.compile(r"[a-zé][235789]|[235789][a-zé]")
_LAUGHTER = re.compile(r"h{2,}|(?:[hj][ae]){2,}h?|(?:kh){2,}|m+d+r+|lo+l")


def languages(words: Sequence[str]) -> list[Language]:
    """The language of each of a row's Latin words, in their order.

    A French word of one or two letters is Arabizi where the nearest longer words on both sides are, or the one there is.
    """
    alone = [language_of(word) for word in words]
    firm: list[Language | None] = [
        None if language == "other" or (language == "french" and len(word.strip("'’-_")) <= CLITIC) else language
        for word, language in zip(words, alone, strict=True)
    ]
    before, after = list(accumulate(firm, _latest)), list(accumulate(reversed(firm), _latest))[::-1]
    return [
        "arabizi" if own is None and language == "french" and {left, right} - {None} == {"arabizi"} else language
        for own, language, left, right in zip(firm, alone, before, after, strict=True)
    ]


def _latest(earlier: Language | None, now: Language | None) -> Language | None:
    return now or earlier


@lru_cache(maxsize=2**16)
def language_of(word: str) -> Language:
    """The language of a word alone, whatever its case: "bien" -> french, "3lach" -> arabizi, "redmi" -> other."""
    word = word.casefold().replace("’", "'").strip("'-_")
    if _zipf(word, "fr") >= FRENCH_ANYWAY or ("'" in word and _zipf(word, "fr") >= COMMON):
        return "french"  # aujourd'hui, which the next lines would take apart
    elided = _ELIDED.match(word)
    if elided:
        return language_of(word[elided.end() :])
    parts = [part for part in _PARTS.split(word) if part]
    if len(parts) > 1:
        found = {language_of(part) for part in parts}
        return "arabizi" if "arabizi" in found else "french" if "french" in found else "other"
    if _MODEL.fullmatch(word) or _LAUGHTER.fullmatch(word):
        return "other"
    if _ARABIZI_DIGIT.search(word):
        return "arabizi"
    french, english = _zipf(word, "fr"), _zipf(word, "en")
    enough = SHORT_COMMON if len(word) <= SHORT else LONG_COMMON if len(word) >= LONG else COMMON
    if _ACCENT.search(word):
        enough = ACCENTED_COMMON
    if french >= enough and french - english >= MARGIN:
        return "french"
    if len(word) > SHORT and french >= SHARED and french - english >= SHARED_MARGIN:
        return "french"
    return "other" if english >= ENGLISH and english - french >= ENGLISH_MARGIN else "arabizi"


def _zipf(word: str, language: str) -> float:
    frequency = _frequencies(language).get(word, 0.0)
    return log10(frequency) + 9 if frequency else 0.0


@lru_cache(maxsize=2)
def _frequencies(language: str) -> dict[str, float]:
    from wordfreq import get_frequency_dict  # here: 0.2 s and 80 MB, which not every command needs

    return dict(get_frequency_dict(language, wordlist="large"))
