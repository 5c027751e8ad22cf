"""Cleaning a row: every rule in a fixed order until nothing changes, then the reasons for which a row is dropped."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from data_prep.latin import Latin, has_latin, remove_french_words, remove_latin_words
from data_prep.rules import REQUIRED, RULES, has_letter

Diacritics = Literal["keep", "remove"]
DIACRITICS_CHOICES: tuple[Diacritics, ...] = ("keep", "remove")
LATIN_RULE = "latin_words"
CHANGES = (*RULES, LATIN_RULE)
# Why a row is dropped while it is cleaned, in the order in which the reasons are looked for: a row has one.
REASONS = {
    "empty": "nothing but white space in the source",
    "too_long": "more characters than any comment or transcript has",
    "restless": "rules still changed it after several passes: a row made to confuse them",
    "no_letters": "no letter left once links, handles and marks were removed",
    "latin": "only words in Latin script that --latin drops, or any such word with --latin drop-rows",
    "few_letters": "a single letter, or hardly any letters among digits and marks",
}
MAX_CHARACTERS = 1_000_000
PASSES = 4
"""How often the rules may be applied to a row; each pass but the last changes it. Two do for nearly every row."""
MIN_LETTERS = 2
MIN_LETTER_SHARE = 0.25
"""Letters among the characters that are neither white space nor emoji."""


@dataclass(frozen=True)
class Cleaning:
    """What is done to a row: words in Latin script, diacritics, and the rules that are left out."""

    latin: Latin = "drop-words"
    diacritics: Diacritics = "keep"
    skip: frozenset[str] = frozenset()

    def rules(self) -> tuple[tuple[str, Callable[[str], str]], ...]:
        """(name, rule) in the order of application, without the Latin rule."""
        left_out = self.skip - REQUIRED
        if self.diacritics == "keep":
            left_out |= {"diacritics"}
        return tuple((name, rule) for name, rule in RULES.items() if name not in left_out)


@dataclass(frozen=True)
class Cleaned:
    """A row after cleaning: its text, the reason it is dropped for (None: kept), the rules that changed it, and its text
    before words in Latin script were removed."""

    text: str
    dropped: str | None
    changed: tuple[str, ...]
    whole: str


def cleaner(cleaning: Cleaning) -> Callable[[str], Cleaned]:
    """The function that cleans a row: `clean_row` with its rules looked up once."""
    return partial(clean_row, cleaning=cleaning, rules=cleaning.rules())


def clean_row(row: str, cleaning: Cleaning, rules: tuple[tuple[str, Callable[[str], str]], ...] | None = None) -> Cleaned:
    """Applies every rule in order, again while something changes: cleaning a clean row changes nothing.

    A kept row has a letter and no line end. Removing one thing can bring another together ("0550 http://x 123456"), which
    is why one pass is not enough.
    """
    rules = cleaning.rules() if rules is None else rules
    if not row or row.isspace():
        return Cleaned("", "empty", ("space",) if row else (), "")
    if len(row) > MAX_CHARACTERS:
        return Cleaned("", "too_long", (), "")
    text, changed, whole = row, dict[str, None](), ""
    for _ in range(PASSES):
        before = text
        for name, rule in rules:
            text, was = rule(text), text
            if text != was:
                changed[name] = None
        whole = whole or text
        text, was = _LATIN[cleaning.latin](text), text
        if text != was:
            changed[LATIN_RULE] = None
        if text == before:
            return Cleaned(text, _reason(text, cleaning, LATIN_RULE in changed), tuple(changed), whole)
    return Cleaned("", "restless", tuple(changed), "")


def few_letters(text: str) -> bool:
    """Whether letters are next to none: "ا 1 2 3 4 5 6 7 8", "ه". Emoji do not count against a row."""
    letters = others = 0
    for character in text:
        if character.isalpha():
            letters += 1
        elif character < "\u2190" and character != " ":
            others += 1
    return letters < MIN_LETTERS or letters < MIN_LETTER_SHARE * (letters + others)


def _reason(text: str, cleaning: Cleaning, latin_removed: bool) -> str | None:
    if not has_letter(text):
        return "latin" if latin_removed else "no_letters"
    if cleaning.latin == "drop-rows" and has_latin(text):
        return "latin"
    if "few_letters" not in cleaning.skip and few_letters(text):
        return "few_letters"
    return None


def _unchanged(text: str) -> str:
    return text


_LATIN: dict[Latin, Callable[[str], str]] = {
    "drop-words": remove_latin_words,
    "drop-french": remove_french_words,
    "drop-rows": _unchanged,
    "keep": _unchanged,
}
