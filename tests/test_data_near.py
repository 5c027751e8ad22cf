"""Near-duplicates and spam against brute force, whatever the buckets; and what they must leave alone."""

import random
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import near
from data_prep.clean import Cleaning, cleaner
from data_prep.dedup import dedup_key
from data_prep.near import NONE, SHINGLE, SIMILAR, Texts, find_near_duplicates, jaccard, shingles
from data_prep.spam import HASH_BYTES, MIN_ROWS, RUN_WORDS, frequent_runs, run_hashes, spam_rows
from data_prep.spool import spool_rows

LETTERS = "ابتجحدرسشعفقكلمنهوي"


def words(count, seed):
    draw = random.Random(seed)
    return ["".join(draw.sample(LETTERS, draw.randint(3, 6))) for _ in range(count)]


def rows_with_copies(rows, copies, seed):
    """(rows, [(copy, original)]): `copies` of the rows stand again further on, one word in twelve replaced."""
    draw = random.Random(seed)
    made = [" ".join(words(12, seed * 1000 + i)) for i in range(rows)]
    pairs = []
    for original in draw.sample(range(rows), copies):
        text = made[original].split()
        text[draw.randrange(12)] = "".join(draw.sample(LETTERS, 3))
        pairs.append((len(made), original))
        made.append(" ".join(text))
    return made, pairs


def spooled(rows, folder):
    return spool_rows([(row, None) for row in rows], cleaner(Cleaning()), folder)


def similarity(one, other):
    """Jaccard by sets of substrings, with nothing of the module."""
    a, b = ({key[i : i + SHINGLE] for i in range(len(key) - SHINGLE + 1)} for key in map(dedup_key, (one, other)))
    return len(a & b) / len(a | b) if a | b else 0.0


@given(st.lists(st.text("ابت", max_size=12), min_size=2, max_size=8))
def test_jaccard_by_sets(tmp_path_factory, rows):
    rows = [f"و {row} ن" for row in rows]
    spool = spooled(rows, tmp_path_factory.mktemp("spool"))
    first, second = (np.array(column) for column in zip(*combinations(range(len(rows)), 2), strict=True))
    with Texts(spool) as texts:
        found = jaccard(texts, first, second)
        assert [texts.row(i) for i in range(len(rows))] == list(spool.texts(np.ones(spool.rows, bool)))
    expected = [similarity(rows[i], rows[j]) for i, j in zip(first, second, strict=True)]
    assert found == pytest.approx(expected)


@given(st.lists(st.text("ابتج", max_size=20), max_size=20))
def test_shingles_stay_inside_their_row(keys):
    hashes, offsets = shingles(keys)
    assert np.diff(offsets).tolist() == [max(len(key) - SHINGLE + 1, 0) for key in keys]
    by_text: dict[str, int] = {}
    for key, start, end in zip(keys, offsets[:-1], offsets[1:], strict=True):
        for i, value in enumerate(hashes[start:end].tolist()):
            assert by_text.setdefault(key[i : i + SHINGLE], value) == value
    assert len(set(by_text.values())) == len(by_text)


@pytest.mark.parametrize("bucket_rows", [50, near.BUCKET_ROWS])
def test_all_pairs_of_brute_force_are_found(tmp_path, bucket_rows):
    """Recall: at 0.7 a pair is missed with odds of 1 in 100, most copies here are more alike. Precision: none is wrong."""
    rows, pairs = rows_with_copies(150, 60, seed=3)
    spool = spooled(rows, tmp_path)
    assert spool.rows == len(rows)
    found = find_near_duplicates(spool, np.zeros(len(rows), dtype=np.uint8), bucket_rows)
    alike = {(i, j) for i, j in combinations(range(len(rows)), 2) if similarity(rows[i], rows[j]) >= SIMILAR}
    hit = set(np.flatnonzero(found.rank == 0).tolist())
    assert hit <= {j for _, j in alike} and len(hit) >= len({j for _, j in alike}) - 1
    assert 40 <= len(hit) <= len(pairs)
    assert all(similarity(rows[row], rows[earlier]) >= SIMILAR for row, earlier in found.examples)
    assert not list(tmp_path.glob("band-*")), "the bands are gone"


def test_ranks_decide_which_of_two_stays(tmp_path):
    """The copy stands later, but its rank is lower: the original goes. Rows of no rank take no part."""
    rows, pairs = rows_with_copies(60, 30, seed=4)
    spool = spooled(rows, tmp_path)
    pairs = [(copy, original) for copy, original in pairs if similarity(rows[copy], rows[original]) >= SIMILAR]
    ranks = np.full(len(rows), 2, dtype=np.uint8)
    ranks[60:] = 1
    ranks[pairs[0][0]] = NONE
    found = find_near_duplicates(spool, ranks)
    assert set(np.flatnonzero(found.rank != NONE).tolist()) == {original for _, original in pairs[1:]}
    assert found.pairs(ranks) == {(2, 1): len(pairs) - 1} and len(pairs) > 15


def test_nothing_is_found_among_different_rows(tmp_path):
    rows = [" ".join(words(8, i)) for i in range(300)] + ["لا", "ايه", "واش", "صحا"]
    found = find_near_duplicates(spooled(rows, tmp_path), np.zeros(len(rows), dtype=np.uint8))
    assert (found.rank == NONE).all() and found.examples == []


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("الله يجيب الخير للجميع", "الله الله يجيب الخير للجميع", True),
        ("صباح الخير جارتي فتيحة", "صباح الخير جارتي", False),
        (
            "جدتي كانت تطيب الكسكسي كل جمعة وتعيط لقاع الجيران ياكلو معانا",
            "جدتي كانت تطيب الكسكسي كل عيد وتعيط لقاع الجيران ياكلو معانا",
            True,
        ),
        ("سومة الباطاطا اليوم في سوق بومعطي 70 دينار للكيلو", "سومة الباطاطا اليوم في سوق بومعطي 85 دينار للكيلو", True),
        ("راني جاي", "راني جايبو", False),
        ("عندي عرس", "عندي فرح", False),
    ],
)
def test_what_counts_as_nearly_the_same(tmp_path, one, other, alike):
    with Texts(spooled([one, other], tmp_path)) as texts:
        assert (jaccard(texts, np.array([0]), np.array([1]))[0] >= SIMILAR) == alike


def spam_of(rows, folder):
    spool = spooled(rows, folder)
    return spam_rows(spool.runs, spool.words(), np.ones(spool.rows, bool)), spool


ADVERT = "للبيع سيارة في حالة جيدة جدا الاتصال بالرقم الموجود في الصفحة"


def test_an_advertisement_under_varying_words_is_spam(tmp_path):
    """11 words of an advertisement in 12 rows; a row goes where they are more than half of it."""
    plain = [" ".join(words(9, i)) for i in range(40)]
    adverts = [f"{word} {ADVERT} {i}" for i, word in enumerate(words(12, 99))]
    mostly_own = f"{' '.join(words(20, 7))} {ADVERT}"
    found, spool = spam_of([*plain, *adverts, mostly_own], tmp_path)
    assert spool.rows == 53
    assert np.flatnonzero(found).tolist() == list(range(40, 52))


def test_nine_rows_are_no_spam(tmp_path):
    assert MIN_ROWS == 10
    found, _ = spam_of([f"{word} {ADVERT} {i}" for i, word in enumerate(words(9, 99))], tmp_path)
    assert not found.any()


def test_a_row_that_repeats_itself_counts_once(tmp_path):
    own = " ".join(words(RUN_WORDS, 1))
    found, _ = spam_of([f"{own} {own} {own} و {own} {own} {own} و {own} {own} {own} {own} {i}" for i in range(9)], tmp_path)
    assert not found.any()


def test_blessings_shorter_than_a_run_are_no_spam(tmp_path):
    found, _ = spam_of([f"{word} ربي يحفظك خويا العزيز {word[::-1]} {i}" for i, word in enumerate(words(50, 5))], tmp_path)
    assert not found.any()


@settings(max_examples=30)
@given(st.lists(st.lists(st.sampled_from("ابتجح"), min_size=1, max_size=14), min_size=1, max_size=40), st.integers(1, 90))
def test_frequent_runs_whatever_the_bucket(tmp_path_factory, rows, bucket_runs):
    path = tmp_path_factory.mktemp("runs") / "runs.bin"
    path.write_bytes(b"".join(map(run_hashes, rows)))
    assert path.stat().st_size == HASH_BYTES * sum(max(len(row) - RUN_WORDS + 1, 0) for row in rows)
    counts = np.array([len(row) for row in rows])
    kept = np.ones(len(rows), bool)
    few, one = frequent_runs(path, counts, kept, bucket_runs), frequent_runs(path, counts, kept)
    assert few.tolist() == one.tolist() == []
    many = path.with_name("many.bin")
    many.write_bytes(path.read_bytes() * MIN_ROWS)
    few, one = (frequent_runs(many, np.tile(counts, MIN_ROWS), np.tile(kept, MIN_ROWS), b) for b in (bucket_runs, 10**6))
    assert few.tolist() == one.tolist() == sorted(set(np.frombuffer(path.read_bytes(), dtype="<u8").tolist()))
