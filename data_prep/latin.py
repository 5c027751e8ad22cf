"""Words in Latin script: found, removed, told apart into French, Arabizi (Darija in Latin letters) and others."""

import re
from collections import Counter
from typing import Literal

from data_prep.french import languages
from data_prep.rules import fold_space, has_letter

Latin = Literal["drop-words", "drop-french", "drop-rows", "keep"]
LATIN_CHOICES: tuple[Latin, ...] = ("drop-words", "drop-french", "drop-rows", "keep")

_WORD = re.compile(r"\S+")
# Letters of the Latin script, with IPA, full-width and the "fancy" mathematical and enclosed alphabets of social media.
_LATIN = (
    "A-Za-zªºÀ-ÖØ-öø-ʯᴀ-ᴥᴬ-ᵥᵫ-ᶿḀ-ỿⁱⁿₐ-ₜⒶ-ⓩⱠ-ⱿꜢ-ꞿꟂ-ꟿꬰ-ꭤﬀ-ﬆＡ-Ｚａ-ｚ"
    "\U0001d400-\U0001d6a5\U0001f130-\U0001f149\U0001f150-\U0001f169\U0001f170-\U0001f189"
)
_LATIN_LETTER = re.compile(f"[{_LATIN}]")
ARABIC_LETTER = re.compile("[\u0620-\u064a\u066e-\u06d3\u06fa-\u06ff\u0750-\u077f\u08a0-\u08c9\ufb50-\ufdff\ufe70-\ufefc]")
LATIN_RUN = re.compile(f"[{_LATIN}0-9'’_\u0300-\u036f-]+")
"""A word in Latin letters with its digits (3lach), apostrophes and hyphens; alone, those may also match."""


def has_latin(text: str) -> bool:
    """Whether a letter of the Latin script is in the text: "راني f la maison" -> True."""
    return _LATIN_LETTER.search(text) is not None


def remove_latin_words(text: str) -> str:
    """Removes words with Latin letters and the digits glued to them; what else a mixed word holds stays.

    "واش bien راك 3lach" -> "واش راك", "مطعمpizza" -> "مطعم".
    """
    if not has_latin(text):
        return text
    return _remove_runs(text, {run.start() for run in latin_runs(text)})


def remove_french_words(text: str) -> str:
    """Removes French words and keeps Arabizi and names: "rani f la maison, 3lach? واش bien راك" -> "rani f 3lach? واش راك"."""
    if not has_latin(text):
        return text
    runs = latin_runs(text)
    found = languages([run.group() for run in runs])
    french = {run.start() for run, language in zip(runs, found, strict=True) if language == "french"}
    return _remove_runs(text, french) if french else text


def latin_runs(text: str) -> list[re.Match[str]]:
    """The words in Latin letters of a text, in order."""
    return [run for run in LATIN_RUN.finditer(text) if has_latin(run.group())]


def count_languages(text: str) -> Counter[str]:
    """Words of a row by language: Latin words as `languages` tells them, all others by whether they hold Arabic letters."""
    counts: Counter[str] = Counter()
    rest = text
    if has_latin(text):
        runs = latin_runs(text)
        counts.update(languages([run.group() for run in runs]))
        rest = LATIN_RUN.sub(lambda run: " " if has_latin(run.group()) else run.group(), text)
    for word in rest.split():
        if ARABIC_LETTER.search(word):
            counts["arabic"] += 1
        elif has_letter(word):
            counts["other"] += 1
    return counts


def _remove_runs(text: str, unwanted: set[int]) -> str:
    """`text` without the Latin runs that start at `unwanted`."""

    def rest(word: re.Match[str]) -> str:
        whole, start = word.group(), word.start()
        left = LATIN_RUN.sub(lambda run: " " if start + run.start() in unwanted else run.group(), whole)
        # A word's own punctuation goes with it: "bien!" leaves nothing, not "!".
        return whole if left == whole else left if has_letter(left) else " "

    return fold_space(_WORD.sub(rest, text))
