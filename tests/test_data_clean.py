"""Cleaning rules and duplicate keys, each against examples worked out by hand, then against any text."""

import time
import unicodedata

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from data_prep import clean, dedup
from gpt_core.tokens import END_OF_TEXT

FRAGMENTS = [
    *(
        "واش",
        "راك",
        "صحّا",
        "الجزائر",
        "ـ",
        "bien",
        "3lach",
        "l'école",
        "é",
        "e\u0301",
        "𝓫𝓸𝓷",
        "7",
        "٣",
        "!",
        "،",
        "😂",
        "👨",
    ),
    *(
        " ",
        "\n",
        "\u00a0",
        "\u200c",
        "\u200d",
        "\u200f",
        "\u2066",
        "\ufeff",
        "\x00",
        "\x85",
        "\ud800",
        "\u0301",
        "ʼ",
        "-",
        "_",
    ),
    *(
        "http://",
        "https://t.co/x",
        "www.",
        "a.com",
        "djezzy.dz",
        "bit.ly/",
        ".com",
        "@",
        "@kamel",
        "kamel@mail.com",
        "/",
    ),
    *(END_OF_TEXT, "<|endof", "text|>", "〈", "\u2329", "\u212a", "\u2000", "％"),
]
ANY_TEXT = st.one_of(st.text(), st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join))
LETTERS = st.text(st.sampled_from("ابتجحدرسشعفقكلمنهويىةپڤڨabceéz"), min_size=1, max_size=30)


@pytest.mark.parametrize(
    ("rule", "before", "after"),
    [
        (clean.strip_invisible, "وا\u200fش \u2066راك\u2069", "واش راك"),
        (clean.strip_invisible, "مي\u200cشي \u200bوا\u00adلو\ufeff\x07\ud800", "ميشي والو"),
        (clean.strip_invisible, "صحا\ufffd\ufffd", "صحا"),
        (clean.strip_invisible, "👨\u200d👩\u200d👧", "👨\u200d👩\u200d👧"),
        (clean.strip_invisible, "وا\u200dش 👨\u200dوالو", "واش 👨والو"),
        (clean.strip_invisible, "سطر\n\tآخر", "سطر\n\tآخر"),
        (clean.compose, "cafe\u0301", "café"),
        (clean.compose, "ا\u0653", "آ"),
        (clean.fold_space, " واش\r\n\t راك\u00a0\u2003خويا\x85", "واش راك خويا"),
        (clean.remove_end_of_text, f"واش{END_OF_TEXT}راك {END_OF_TEXT}", "واش راك"),
        (clean.remove_end_of_text, f"<|endof{END_OF_TEXT}text|>", "<|endof text|>"),
        (clean.remove_urls, "شوف https://t.co/Ab?c=1#d هنا", "شوف هنا"),
        (clean.remove_urls, "شوف HTTP://X.ORG و www.x.dz/y و youtube.com/watch و djezzy.dz", "شوف و و و"),
        (clean.remove_urls, "bit.ly/x mais bien.me", "mais bien.me"),
        (clean.remove_urls, "الساعة 12.30 و 4.5.6 نقاط.", "الساعة 12.30 و 4.5.6 نقاط."),
        (clean.remove_handles, "صحا @kamel_dz خويا @كمال", "صحا خويا"),
        (clean.remove_handles, "ابعث ل kamel.b@mail.dz شكرا@sara", "ابعث ل شكرا"),
        (clean.remove_handles, "سعر @ 100", "سعر @ 100"),
        (clean.remove_latin_words, "واش bien راك 3lach", "واش راك"),
        (clean.remove_latin_words, "ça va! خويا, l'école نتاعك", "خويا, نتاعك"),
        (clean.remove_latin_words, "مطعمpizza4 مليح", "مطعم مليح"),
        (clean.remove_latin_words, "𝓫𝓸𝓷 ｂｏｎ ⓑⓞⓝ سعر 100 و ×2", "سعر 100 و ×2"),
        (clean.remove_latin_words, "ⴰⵣⵓⵍ привет شكرا", "ⴰⵣⵓⵍ привет شكرا"),
    ],
)
def test_rule(rule, before, after):
    assert rule(before) == after


@pytest.mark.parametrize(
    ("row", "latin", "text", "dropped", "changed"),
    [
        ("واش راك", "drop-words", "واش راك", None, ()),
        ("واش  bien راك @sara", "drop-words", "واش راك", None, ("space", "handles", "latin_words")),
        ("واش bien", "drop-rows", "واش bien", "latin", ()),
        ("واش bien", "keep", "واش bien", None, ()),
        ("cava bien", "drop-words", "", "latin", ("latin_words",)),
        ("cava bien", "keep", "cava bien", None, ()),
        (" \n\t", "drop-words", "", "empty", ("space",)),
        ("", "keep", "", "empty", ()),
        ("https://t.co/x 👍 100", "keep", "👍 100", "no_letters", ("urls",)),
        ("\u200f", "keep", "", "no_letters", ("invisible",)),
        ("ــــ", "keep", "ــــ", "no_letters", ()),
    ],
)
def test_row(row, latin, text, dropped, changed):
    assert clean.clean_row(row, latin) == clean.Cleaned(text, dropped, changed)


@given(ANY_TEXT, st.sampled_from(clean.LATIN_CHOICES))
@example("0.COMHTTP://", "drop-rows")  # what is left of a link that was removed must not become one
@example("a.com@b", "keep")
def test_clean_row_is_stable_and_safe(text, latin):
    once = clean.clean_row(text, latin)
    again = clean.clean_row(once.text, latin)
    assert again.text == once.text and again.changed == ()
    once.text.encode("utf-8")
    assert once.text == " ".join(once.text.split()) == unicodedata.normalize("NFC", once.text)
    assert END_OF_TEXT not in once.text
    if once.dropped is None:
        assert again.dropped is None and clean.has_letter(once.text)
        assert latin == "keep" or not clean.has_latin(once.text)


@pytest.mark.parametrize("endless", ["a", "ا", "-", "1", "a.", "@", "@a", "😂\u200d", "www.", "'9", "\u200d", "<|endoftext|>"])
def test_an_endless_word_takes_linear_time(endless):
    start = time.perf_counter()
    clean.clean_row(f"{endless * 200_000} @x http://x bien", "drop-words")
    dedup.dedup_key(endless * 200_000)
    assert time.perf_counter() - start < 5, "quadratic time would be hours"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("صحااااا، خويا!!", "صحـــا خويا 😂"),
        ("الله يبارك", "اللللله يباااارك"),
        ("ما كان والو", "ماكان والو ..."),
        ("صَحَّا", "صحا"),
        ("Bravo", "BRAVOOO"),
    ],
)
def test_same_key(one, other):
    assert dedup.dedup_key(one) == dedup.dedup_key(other)
    assert dedup.dedup_hash(one) == dedup.dedup_hash(other)


@pytest.mark.parametrize(("one", "other"), [("سعر 100", "سعر 1000"), ("راك مليح", "راه مليح"), ("cote", "coté"), ("٣", "٤")])
def test_other_key(one, other):
    assert dedup.dedup_hash(one) != dedup.dedup_hash(other)


@given(LETTERS, st.lists(st.integers(1, 5), min_size=30, max_size=30), st.sampled_from(["", "ـ", " ", "!", "\u064e", "😂"]))
def test_stretching_a_row_keeps_its_key(row, times, filler):
    stretched = "".join(letter * n + filler for letter, n in zip(row, times, strict=False))
    assert dedup.dedup_key(stretched) == dedup.dedup_key(row)


@given(st.lists(st.integers(0, 20), max_size=60), st.integers(1, 70))
def test_first_occurrences_whatever_the_bucket(tmp_path_factory, values, bucket_rows):
    path = tmp_path_factory.mktemp("hashes") / "hashes.bin"
    np.array(values, dtype="<u8").tofile(path)
    seen, expected = set(), []
    for value in values:
        expected.append(value not in seen)
        seen.add(value)
    assert dedup.first_occurrences(path, bucket_rows).tolist() == expected
