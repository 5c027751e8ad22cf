"""Cleaning: small pure functions from text to text, applied in a fixed order; cleaning a clean row changes nothing."""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from gpt_core.tokens import END_OF_TEXT

Latin = Literal["drop-words", "drop-rows", "keep"]
LATIN_CHOICES: tuple[Latin, ...] = ("drop-words", "drop-rows", "keep")

# Invisible or without meaning outside their document: controls, soft hyphen, fillers, zero-width and bidi marks,
# surrogates, tags, and the replacement character that broken decoding leaves. ZWNJ (200C) is among them: Persian spells
# with it, Darija does not, so here it is debris that would give one word two spellings. White space is
# not here (it is folded), nor is ZWJ (200D), which joins emoji.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u115f\u1160\u180b-\u180f\u200b\u200c\u200e\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffd\ud800-\udfff\U000e0000-\U000e0fff]"
)
_EMOJI = "\u2194\u2195\u2600-\u27bf\u2b1b\ufe0f\U0001f000-\U0001faff"
_STRAY_JOINER = re.compile(f"(?<![{_EMOJI}])\u200d|\u200d(?![{_EMOJI}])")
_SPACE = re.compile(r"\s+")
_WORD = re.compile(r"\S+")
# Every pattern below can start in few places only, so that one endless word costs linear time.
_URL = re.compile(
    r"(?:https?://|(?<![\w.-])www\.)\S*"
    r"|(?<![a-z0-9@.-])[a-z0-9][a-z0-9.-]*\.(?:(?:com|net|org|info|dz|fr)(?=/|\s|$|https?://)|(?:be|co|gl|io|ly|ma|me|tn|tv)(?=/))\S*",
    re.IGNORECASE,
)
_HANDLE = re.compile(r"(?:(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]+)?@\w[\w.-]*")
# Letters of the Latin script, with IPA, full-width and the "fancy" mathematical and enclosed alphabets of social media.
_LATIN = (
    "A-Za-zªºÀ-ÖØ-öø-ʯᴀ-ᴥᴬ-ᵥᵫ-ᶿḀ-ỿⁱⁿₐ-ₜⒶ-ⓩⱠ-ⱿꜢ-ꞿꟂ-ꟿꬰ-ꭤﬀ-ﬆＡ-Ｚａ-ｚ"
    "\U0001d400-\U0001d6a5\U0001f130-\U0001f149\U0001f150-\U0001f169\U0001f170-\U0001f189"
)
_LATIN_LETTER = re.compile(f"[{_LATIN}]")
_LATIN_RUN = re.compile(f"[{_LATIN}0-9'’_\u0300-\u036f-]+")
_TATWEEL = "ـ"  # a letter to Unicode that only stretches a word


@dataclass(frozen=True)
class Cleaned:
    """A row after cleaning: its text, the reason it is dropped for (None: kept), and the rules that changed it."""

    text: str
    dropped: str | None
    changed: tuple[str, ...]


def strip_invisible(text: str) -> str:
    """Removes control, bidi, zero-width and surrogate characters: "وا\\u200fش" -> "واش"."""
    if text.isascii() and text.isprintable():
        return text
    return _STRAY_JOINER.sub("", _INVISIBLE.sub("", text))


def compose(text: str) -> str:
    """Unicode NFC, so that one letter has one spelling: "e\\u0301" -> "é"."""
    return unicodedata.normalize("NFC", text)


def fold_space(text: str) -> str:
    """One space for any white space, line ends included, none at the ends: " واش\\n  راك" -> "واش راك"."""
    return _SPACE.sub(" ", text).strip(" ")


def remove_end_of_text(text: str) -> str:
    """Removes the string that marks row ends in the token stream: "واش<|endoftext|>" -> "واش"."""
    return fold_space(text.replace(END_OF_TEXT, " ")) if END_OF_TEXT in text else text


def remove_urls(text: str) -> str:
    """Removes links up to the next space, with or without a scheme: "شوف https://t.co/x هنا" -> "شوف هنا"."""
    return _remove(_URL, text)


def remove_handles(text: str) -> str:
    """Removes @handles and e-mail addresses: "صحا @kamel_dz خويا" -> "صحا خويا"."""
    return _remove(_HANDLE, text) if "@" in text else text


def remove_latin_words(text: str) -> str:
    """Removes words with Latin letters and the digits glued to them; what else a mixed word holds stays.

    "واش bien راك 3lach" -> "واش راك", "مطعمpizza" -> "مطعم".
    """
    if not has_latin(text):
        return text
    return fold_space(_WORD.sub(_without_latin, text))


def has_latin(text: str) -> bool:
    """Whether a letter of the Latin script is in the text: "راني f la maison" -> True."""
    return _LATIN_LETTER.search(text) is not None


def has_letter(text: str) -> bool:
    """Whether a letter of any script is in the text: "👍 100 !" -> False."""
    return any(character.isalpha() and character != _TATWEEL for character in text)


RULES: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("invisible", strip_invisible),
    ("unicode_nfc", compose),
    ("space", fold_space),
    ("end_of_text", remove_end_of_text),
    ("urls", remove_urls),
    ("handles", remove_handles),
)
LATIN_RULE = "latin_words"
CHANGES = (*(name for name, _ in RULES), LATIN_RULE)
# Why a row is dropped while it is cleaned, in the order in which the reasons are looked for: a row has one.
REASONS = {
    "empty": "nothing but white space in the source",
    "no_letters": "no letter left once links, handles and marks were removed",
    "latin": "only words in Latin script, or any such word with --latin drop-rows",
}


def clean_row(row: str, latin: Latin) -> Cleaned:
    """Applies every rule in order, then decides whether the row is kept. A kept row has a letter and no line end."""
    text, changed = row, []
    for name, rule in RULES:
        before, text = text, rule(text)
        if text != before:
            changed.append(name)
    dropped = None
    if not has_letter(text):
        dropped = "no_letters" if row.strip() else "empty"
    elif latin == "drop-rows":
        dropped = "latin" if has_latin(text) else None
    elif latin == "drop-words" and has_latin(text):
        text = remove_latin_words(text)
        changed.append(LATIN_RULE)
        dropped = None if has_letter(text) else "latin"
    return Cleaned(text, dropped, tuple(changed))


def _remove(pattern: re.Pattern[str], text: str) -> str:
    without = pattern.sub(" ", text)
    return text if without == text else fold_space(without)


def _without_latin(word: re.Match[str]) -> str:
    whole = word.group()
    if not has_latin(whole):
        return whole
    rest = _LATIN_RUN.sub(lambda run: " " if has_latin(run.group()) else run.group(), whole)
    # A word's own punctuation goes with it: "bien!" leaves nothing, not "!".
    return rest if has_letter(rest) else " "
