"""Cleaning rules and duplicate keys, each against examples worked out by hand, then against any text."""

import time
import unicodedata

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from data_prep import clean, dedup, latin, rules
from data_prep.clean import Cleaning
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
        (rules.strip_invisible, "وا\u200fش \u2066راك\u2069", "واش راك"),
        (rules.strip_invisible, "مي\u200cشي \u200bوا\u00adلو\ufeff\x07\ud800", "ميشي والو"),
        (rules.strip_invisible, "صحا\ufffd\ufffd", "صحا"),
        (rules.strip_invisible, "👨\u200d👩\u200d👧", "👨\u200d👩\u200d👧"),
        (rules.strip_invisible, "وا\u200dش 👨\u200dوالو", "واش 👨والو"),
        (rules.strip_invisible, "سطر\n\tآخر", "سطر\n\tآخر"),
        (rules.compose, "cafe\u0301", "café"),
        (rules.compose, "ا\u0653", "آ"),
        (rules.fold_space, " واش\r\n\t راك\u00a0\u2003خويا\x85", "واش راك خويا"),
        (rules.remove_end_of_text, f"واش{END_OF_TEXT}راك {END_OF_TEXT}", "واش راك"),
        (rules.remove_end_of_text, f"<|endof{END_OF_TEXT}text|>", "<|endof text|>"),
        (rules.remove_urls, "شوف https://t.co/Ab?c=1#d هنا", "شوف هنا"),
        (rules.remove_urls, "شوف HTTP://X.ORG و www.x.dz/y و youtube.com/watch و djezzy.dz", "شوف و و و"),
        (rules.remove_urls, "bit.ly/x mais bien.me", "mais bien.me"),
        (rules.remove_urls, "الساعة 12.30 و 4.5.6 نقاط.", "الساعة 12.30 و 4.5.6 نقاط."),
        (rules.remove_handles, "صحا @kamel_dz خويا @كمال", "صحا خويا"),
        (rules.remove_emails, "ابعث ل kamel.b+x@mail.dz شكرا", "ابعث ل شكرا"),
        (rules.remove_emails, "صحا @sara و a@ b", "صحا @sara و a@ b"),
        (rules.remove_handles, "سعر @ 100 شكرا@sara", "سعر @ 100 شكرا"),
        (rules.fold_presentation, "ﻻﺑﺎﺱ ﻋﻠﻴﻚ ﷲ ½ ² ﬁn", "لاباس عليك الله ½ ² ﬁn"),
        (rules.fold_presentation, "ﷺ", "صلى الله عليه وسلم"),
        (rules.remove_diacritics, "صَحَّا قُرْآن مؤمن رٰ", "صحا قرآن مؤمن ر"),
        (rules.remove_tatweel, "مليـــح ـ", "مليح "),
        (rules.fold_elongation, "صحااااا بزااااف الله belle", "صحاا بزااف الله belle"),
        (rules.fold_elongation, "هههههههه ههه هه اللهههه خخخخخ", "ههه ههه هه اللهه خخخ"),
        (rules.fold_elongation, "هاهاهاهاهاها لالا lolololol 1000000", "هاهاها لالا lololol 1000000"),
        (rules.fold_punctuation, "واش!!!!!!! وين؟؟؟؟ و... !!!", "واش!!! وين؟؟؟ و... !!!"),
        (rules.fold_punctuation, "واش؟!؟!؟!؟! ------- 😂😂😂😂😂", "واش؟!؟! --- 😂😂😂😂😂"),
        (rules.fold_loops, "شكرا شكرا شكرا شكرا شكرا خويا", "شكرا خويا"),
        (rules.fold_loops, "بزاف بزاف بزاف مليح", "بزاف بزاف بزاف مليح"),
        (rules.fold_loops, f"قال {'واش راك خويا ' * 6}ثم راح", "قال واش راك خويا ثم راح"),
        (rules.fold_loops, f"{'ا ب ج ' * 4}ا ب", "ا ب ج ا ب"),
        (latin.remove_latin_words, "واش bien راك 3lach", "واش راك"),
        (latin.remove_latin_words, "ça va! خويا, l'école نتاعك", "خويا, نتاعك"),
        (latin.remove_latin_words, "مطعمpizza4 مليح", "مطعم مليح"),
        (latin.remove_latin_words, "𝓫𝓸𝓷 ｂｏｎ ⓑⓞⓝ سعر 100 و ×2", "سعر 100 و ×2"),
        (latin.remove_latin_words, "ⴰⵣⵓⵍ привет شكرا", "ⴰⵣⵓⵍ привет شكرا"),
    ],
)
def test_rule(rule, before, after):
    assert rule(before) == after


@pytest.mark.parametrize(
    ("row", "choice", "text", "dropped", "changed"),
    [
        ("واش راك", "drop-words", "واش راك", None, ()),
        ("واش  bien راك @sara", "drop-words", "واش راك", None, ("space", "handles", "latin_words")),
        ("واش bien", "drop-rows", "واش bien", "latin", ()),
        ("واش bien", "keep", "واش bien", None, ()),
        ("cava bien", "drop-words", "", "latin", ("latin_words",)),
        ("cava bien", "keep", "cava bien", None, ()),
        ("rani f la maison خويا", "drop-french", "rani f خويا", None, ("latin_words",)),
        ("je suis à la maison", "drop-french", "", "latin", ("latin_words",)),
        ("صحااااا 😂 0550 12 34 56", "keep", "صحاا 😂", None, ("phones", "elongation")),
        ("0555 http://x.com 123456 واش", "keep", "واش", None, ("urls", "phones")),
        ("و", "keep", "و", "few_letters", ()),
        ("1 2 3 4 5 6 7 8 9 لا", "keep", "1 2 3 4 5 6 7 8 9 لا", "few_letters", ()),
        ("لا 😂😂😂😂😂😂😂😂😂😂😂😂", "keep", "لا 😂😂😂😂😂😂😂😂😂😂😂😂", None, ()),
        (" \n\t", "drop-words", "", "empty", ("space",)),
        ("", "keep", "", "empty", ()),
        ("https://t.co/x 👍 100", "keep", "👍 100", "no_letters", ("urls",)),
        ("\u200f", "keep", "", "no_letters", ("invisible",)),
        ("ــــ", "keep", "", "no_letters", ("tatweel",)),
    ],
)
def test_row(row, choice, text, dropped, changed):
    cleaned = clean.clean_row(row, Cleaning(choice))
    assert (cleaned.text, cleaned.dropped, cleaned.changed) == (text, dropped, changed)


@pytest.mark.parametrize(
    "number",
    [
        *("0550123456", "0550 12 34 56", "06.61.23.45.67", "07-71-23-45-67", "021 23 45 67", "038234567"),
        *("+213550123456", "+213 5 50 12 34 56", "00213 550 12 34 56", "+33 6 12 34 56 78", "٠٥٥٠١٢٣٤٥٦", "٠٦٦١ ٢٣ ٤٥ ٦٧"),
    ],
)
def test_telephone_numbers_go(number):
    for text in (number, f"عيطلي {number} دروك", f"رقمي:{number}.", f"2024 {number}"):
        assert not any(character.isdigit() for character in rules.remove_phones(text).removeprefix("2024"))
    assert rules.mask_private(f"عيطلي {number}").count("•") == min(len(number), 12)


@pytest.mark.parametrize(
    "kept",
    [
        *("1200 دج", "100 000 000", "550123456", "1.250.000,00", "2019/2020", "05/06/2023 12:30", "05-06-2023", "3-0", "0-0"),
        *("02/03/2024 5", "1954 1962", "0.5", "4.5.6", "10 000", "128 256 512 1024", "٢٠٢٤", "06h30", "100%"),
    ],
)
def test_prices_years_dates_and_scores_stay(kept):
    text = f"السعر {kept} خويا"
    assert rules.remove_phones(text) == text


def test_a_rule_that_is_skipped_changes_nothing():
    row = "صحااااا @sara مليـح !!!!!! ﻻ 0550123456 و و و و و"
    for name in sorted(set(rules.RULES) - rules.REQUIRED - {"diacritics"}):
        with_rule = clean.clean_row(row, Cleaning("keep"))
        without = clean.clean_row(row, Cleaning("keep", skip=frozenset({name})))
        assert name not in without.changed
        assert (without.text != with_rule.text) == (name in with_rule.changed)
    everything = Cleaning("keep", skip=frozenset(rules.RULES))
    assert clean.clean_row(row, everything).text == row
    assert clean.clean_row("وا\u200fش  راك", everything).text == "واش راك", "what the shards rely on is always done"


def test_diacritics_by_choice():
    assert clean.clean_row("صَحَّا", Cleaning()).text == "صَحَّا"
    assert clean.clean_row("صَحَّا", Cleaning(diacritics="remove")).text == "صحا"


def test_a_row_that_never_comes_to_rest_is_dropped():
    """Telephone numbers inside one another, as brackets are: each pass frees the next."""
    nested = "0661234567"
    for depth in range(1, 7):
        nested = f"0{5 + depth % 3}{depth}5 {nested} {depth}23456"
        cleaned = clean.clean_row(f"واش {nested}", Cleaning("keep"))
        assert cleaned.dropped == (None if depth < clean.PASSES - 1 else "restless")
        assert cleaned.text == ("واش" if cleaned.dropped is None else "")
    assert clean.clean_row("واش" * 400_000, Cleaning("keep")).dropped == "too_long"


@given(ANY_TEXT, st.sampled_from(latin.LATIN_CHOICES), st.sampled_from(clean.DIACRITICS_CHOICES))
@example("0.COMHTTP://", "drop-rows", "keep")  # what is left of a link that was removed must not become one
@example("a.com@b", "keep", "keep")
@example("0555 @a 0661234567", "keep", "remove")
def test_clean_row_is_stable_and_safe(text, choice, diacritics):
    cleaning = Cleaning(choice, diacritics)
    once = clean.clean_row(text, cleaning)
    again = clean.clean_row(once.text, cleaning)
    assert again.text == once.text and again.changed == ()
    once.text.encode("utf-8")
    assert once.text == " ".join(once.text.split()) == unicodedata.normalize("NFC", once.text)
    assert END_OF_TEXT not in once.text
    if once.dropped is None:
        assert again.dropped is None and rules.has_letter(once.text)
        assert choice in ("keep", "drop-french") or not latin.has_latin(once.text)


@pytest.mark.parametrize(
    "endless",
    [
        *("a", "ا", "-", "1", "a.", "@", "@a", "😂\u200d", "www.", "'9", "\u200d", "<|endoftext|>"),
        *("ab", "!?", "ا ", "ا ب ", "05 ", "0550123456 ", "+2", "ﻻ", "la ", "bien "),
    ],
)
def test_an_endless_word_takes_linear_time(endless):
    start = time.perf_counter()
    clean.clean_row(f"{endless * 200_000}"[:999_000] + " @x http://x bien", Cleaning("drop-french"))
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
