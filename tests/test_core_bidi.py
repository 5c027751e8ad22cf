"""Right-to-left text with French in it."""

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_core import bidi

texts = st.text(st.sampled_from("ابتوش ،.<>&\"'la 3é-\n😂"), max_size=40)


def plain(markup: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", "", markup))


@given(texts, st.integers(0, 50))
def test_nothing_is_lost_or_left_unescaped(text, bold):
    assert plain(bidi.isolate(text, bold)) == text


@given(texts, texts)
def test_the_prompt_is_bold_and_nothing_else(text, prompt):
    made = bidi.block(text, prompt)
    assert plain("".join(re.findall(r"<b>(.*?)</b>", made, re.DOTALL))) == prompt


def test_neighbouring_french_words_are_one_run():
    assert bidi.isolate("رحت la plage مع") == 'رحت <bdi lang="fr">la plage</bdi> مع'


def test_a_word_that_begins_in_the_prompt_stays_one_run():
    assert bidi.isolate("رحت la plage", 6) == '<b>رحت </b><bdi lang="fr"><b>la</b> plage</bdi>'


@pytest.mark.parametrize(
    ("text", "expected"),
    [("واش راك", "rtl"), ("Normalement اليوم الما يجي", "rtl"), ("cette année", "ltr"), ("", "rtl"), ("123", "rtl")],
)
def test_direction(text, expected):
    assert bidi.direction(text) == expected


def test_a_block_says_language_and_direction():
    assert bidi.block("لاباس", "واش راك ") == '<p class="darija" lang="ar-DZ" dir="rtl"><b>واش راك </b>لاباس</p>'


def test_markup_in_a_text_is_text():
    assert "<script>" not in bidi.block("<script>alert(1)</script>", "<img src=x>")
