"""Right-to-left text with words of a left-to-right language in it, as HTML that keeps both in order."""

import re

from markupsafe import Markup, escape

LATIN = "A-Za-z\u00c0-\u024f"
LATIN_RUN = re.compile(rf"[{LATIN}](?:[{LATIN}0-9'’\-]|[ ,.](?=[{LATIN}]))*")
"""Neighbouring words in Latin letters, with the spaces and signs between them."""
ARABIC = re.compile("[\u0600-\u06ff\u0750-\u077f\u08a0-\u08ff\ufb50-\ufdff\ufe70-\ufefc]")


def direction(text: str) -> str:
    """ "rtl" unless Latin letters outnumber Arabic ones: a row of Darija may well begin with a French word."""
    latin = sum(len(re.findall(f"[{LATIN}]", run)) for run in LATIN_RUN.findall(text))
    return "rtl" if len(ARABIC.findall(text)) >= latin else "ltr"


def isolate(text: str, bold: int = 0) -> Markup:
    """The text escaped, its first `bold` characters in bold, every run of Latin words in a <bdi> of its own.

    A run keeps its order and its signs inside, also where the bold part ends in the middle of it.
    """
    parts, end = [], 0
    for run in LATIN_RUN.finditer(text):
        parts.append(_emphasised(text[end : run.start()], bold - end))
        parts.append(Markup('<bdi lang="fr">{}</bdi>').format(_emphasised(run.group(), bold - run.start())))
        end = run.end()
    return Markup().join([*parts, _emphasised(text[end:], bold - end)])


def block(text: str, prompt: str = "") -> Markup:
    """A paragraph of Darija, the prompt in bold; language and direction are set."""
    whole = prompt + text
    body = isolate(whole, len(prompt))
    return Markup('<p class="darija" lang="ar-DZ" dir="{}">{}</p>').format(direction(whole), body)


def _emphasised(text: str, bold: int) -> Markup:
    bold = max(0, bold)
    head = Markup("<b>{}</b>").format(text[:bold]) if text[:bold] else Markup()
    return head + escape(text[bold:])
