"""Cleaning rules: small pure functions from text to text, in the order in which they are applied."""

import re
import unicodedata
from collections.abc import Callable

from gpt_core.tokens import END_OF_TEXT

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
_PRESENTATION = re.compile("[\ufb50-\ufdff\ufe70-\ufefc]+")
# Vowel signs, Koranic signs and the superscript alef. U+0653 to U+0655 are not here: they make letters (آ أ إ).
_DIACRITIC = re.compile("[\u0610-\u061a\u064b-\u0652\u0656-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed]+")
_SPACE = re.compile(r"\s+")
# Every pattern below can start in few places only, or takes few characters, so that one endless word costs linear time.
_URL = re.compile(
    r"(?:https?://|(?<![\w.-])www\.)\S*"
    r"|(?<![a-z0-9@.-])[a-z0-9][a-z0-9.-]*\.(?:(?:com|net|org|info|dz|fr)(?=/|\s|$|https?://)|(?:be|co|gl|io|ly|ma|me|tn|tv)(?=/))\S*",
    re.IGNORECASE,
)
_EMAIL = re.compile(r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]+@\w[\w.-]*")
_HANDLE = re.compile(r"@\w[\w.-]*")
# Algerian mobile (05 06 07 and 8 digits) and fixed (02 03 04 and 7) numbers, and international ones (+ or 00, 10 to 15
# digits), digits of any script, parted by at most one space, dot or hyphen. A leading 0 or + is what sets them apart from
# prices and scores; a date is turned down first.
_DIGIT, _ZERO, _GAP = r"(?:[ .\-]?\d)", "[0٠۰]", r"[ .\-]?"
_PHONE = re.compile(
    rf"(?<!\d)(?<!\d[.,\-/])(?!\d\d[ .\-/]\d\d[ .\-/]\d{{4}}(?!\d))"
    rf"(?:{_ZERO}{_GAP}[5-7٥-٧۵-۷]{_DIGIT}{{8}}|{_ZERO}{_GAP}[2-4٢-٤۲-۴]{_DIGIT}{{7}}"
    rf"|(?:\+|{_ZERO}{{2}}) ?[1-9١-٩۱-۹]{_DIGIT}{{9,14}})(?!\d)"
)
_TATWEEL = "ـ"  # a letter to Unicode that only stretches a word
_LETTER_RUN = re.compile(r"([^\W\d_])\1{2,}|([^\W\d_]{2})\2{3,}")
_MARKS = r"[!?؟.,،؛;:…~*#=+_|/\\\-–—•\"'«»()\[\]{}<>^]"
_MARK_RUN = re.compile(rf"({_MARKS})\1{{3,}}|({_MARKS}{{2}})\2{{2,}}")
LONGEST_PHRASE = 20
"""Words of the longest phrase whose repetition is looked for."""
REPEATS = 4
"""How many times in a row make a phrase a loop: people say a word two or three times."""


def strip_invisible(text: str) -> str:
    """Removes control, bidi, zero-width and surrogate characters: "وا\\u200fش" -> "واش"."""
    if text.isascii() and text.isprintable():
        return text
    return _STRAY_JOINER.sub("", _INVISIBLE.sub("", text))


def fold_presentation(text: str) -> str:
    """Arabic presentation forms to letters: "ﻻﺑﺎﺱ" -> "لاباس". NFKC for them alone: it would also spoil "½" and "²"."""
    return _PRESENTATION.sub(lambda found: unicodedata.normalize("NFKC", found.group()), text)


def compose(text: str) -> str:
    """Unicode NFC, so that one letter has one spelling: "e\\u0301" -> "é"."""
    return unicodedata.normalize("NFC", text)


def remove_diacritics(text: str) -> str:
    """Removes vowel signs: "صَحَّا" -> "صحا". Hamza and madda stay, since they make other letters."""
    return _DIACRITIC.sub("", text)


def remove_tatweel(text: str) -> str:
    """Removes the sign that stretches a word: "مليـــح" -> "مليح"."""
    return text.replace(_TATWEEL, "")


def fold_space(text: str) -> str:
    """One space for any white space, line ends included, none at the ends: " واش\\n  راك" -> "واش راك"."""
    return _SPACE.sub(" ", text).strip(" ")


def remove_end_of_text(text: str) -> str:
    """Removes the string that marks row ends in the token stream: "واش<|endoftext|>" -> "واش"."""
    return fold_space(text.replace(END_OF_TEXT, " ")) if END_OF_TEXT in text else text


def remove_urls(text: str) -> str:
    """Removes links up to the next space, with or without a scheme: "شوف https://t.co/x هنا" -> "شوف هنا"."""
    return _remove(_URL, text) if "." in text or "://" in text else text


def remove_emails(text: str) -> str:
    """Removes e-mail addresses: "ابعث ل kamel.b@mail.dz" -> "ابعث ل"."""
    return _remove(_EMAIL, text) if "@" in text else text


def remove_handles(text: str) -> str:
    """Removes @handles: "صحا @kamel_dz خويا" -> "صحا خويا"."""
    return _remove(_HANDLE, text) if "@" in text else text


def remove_phones(text: str) -> str:
    """Removes telephone numbers, and neither prices, years, dates nor scores: "عيطلي 0550 12 34 56" -> "عيطلي"."""
    return _remove(_PHONE, text)


def fold_elongation(text: str) -> str:
    """A letter written three times or more is written twice: "صحااااا" -> "صحاا"; laughter three times: "ههههه" -> "ههه".

    Two, not one: Darija, French and Arabizi double letters ("الله", "belle"), so one would make other words ("اله"), and
    hardly any word has three: all stretched spellings meet in one that is no plain word's, emphasis included. A stretched
    letter that is a word of its own keeps three, the usual "ههه". Pairs ("هاهاهاهاها") stop at three as well.
    """
    return _LETTER_RUN.sub(_bounded, text)


def fold_punctuation(text: str) -> str:
    """A mark four times or more becomes three, a pair of marks three times or more two: "!!!!!!" -> "!!!". Emoji stay."""
    return _MARK_RUN.sub(lambda run: run[1] * 3 if run[1] else run[2] * 2, text)


def fold_loops(text: str) -> str:
    """A phrase of up to 20 words four times or more in a row is written once: speech recognition that hangs."""
    words = text.split(" ")
    if len(words) - len(set(words)) < REPEATS - 1:
        return text
    for length in range(1, min(LONGEST_PHRASE, len(words) // REPEATS) + 1):
        words = _without_loops(words, length)
    return " ".join(words)


# Names are those of the manifest and of --skip-rules. The first ones and "end_of_text" cannot be skipped: what comes after
# relies on them.
RULES: dict[str, Callable[[str], str]] = {
    "invisible": strip_invisible,
    "presentation_forms": fold_presentation,
    "unicode_nfc": compose,
    "diacritics": remove_diacritics,
    "tatweel": remove_tatweel,
    "space": fold_space,
    "end_of_text": remove_end_of_text,
    "phones": remove_phones,
    "urls": remove_urls,
    "emails": remove_emails,
    "handles": remove_handles,
    "elongation": fold_elongation,
    "punctuation": fold_punctuation,
    "loops": fold_loops,
}
REQUIRED = frozenset({"invisible", "unicode_nfc", "space", "end_of_text"})
PRIVATE = ("phones", "urls", "emails", "handles")
"""Rules that remove what may name a person."""


def has_letter(text: str) -> bool:
    """Whether a letter of any script is in the text: "👍 100 !" -> False."""
    return any(character.isalpha() and character != _TATWEEL for character in text)


def mask_private(text: str) -> str:
    """A dot for every character that the privacy rules would remove, for samples of rows as they were."""
    for pattern in (_PHONE, _URL, _EMAIL, _HANDLE):
        text = pattern.sub(lambda found: "•" * min(len(found.group()), 12), text)
    return text


def _remove(pattern: re.Pattern[str], text: str) -> str:
    without = pattern.sub(" ", text)
    return text if without == text else fold_space(without)


def _bounded(run: re.Match[str]) -> str:
    if run[2]:
        return run[2] * 3
    before, after = run.string[run.start() - 1 : run.start()], run.string[run.end() : run.end() + 1]
    return run[1] * (2 if before.isalpha() or after.isalpha() else 3)


def _without_loops(words: list[str], length: int) -> list[str]:
    """Words with every phrase of `length` words that stands REPEATS times or more in a row written once. Linear time."""
    kept: list[str] = []
    start = 0  # of the words not yet copied
    equal = 0  # how many words in a row equal the one `length` before
    for position in range(length, len(words) + 1):
        if position < len(words) and words[position] == words[position - length]:
            equal += 1
            continue
        copies = equal // length + 1
        if copies >= REPEATS:
            first = position - equal - length
            kept += words[start : first + length]
            start = first + copies * length
        equal = 0
    return kept + words[start:]
