"""python -m data_prep.report: what the page says, that it needs nothing else, and how it looks in a browser."""

import json
import random
import re
import sys

import numpy as np
import pytest
from commands import call
from hypothesis import given
from hypothesis import strategies as st

from compare import browser
from data_prep import report
from data_prep.clean import Cleaning, clean_row
from data_prep.command import main as prepare
from data_prep.statistics import LENGTH_EDGES, SAMPLE_CHARACTERS, SAMPLES, Sample, Watch, WordCounter, histogram, shown

WIDTHS = (360, 1200)
OWN = [
    "اليوم رحت la plage مع صحابي و كان الجو شباب",
    "عيطلي على 0550 12 34 56 ولا ابعث ل kamel@mail.dz راني نستنى",
    "<b>صحا</b> & <script>alert(1)</script> خويا العزيز",
    "جدتي كانت تطيب الكسكسي كل جمعة وتعيط لقاع الجيران ياكلو معانا",
    "جدتي كانت تطيب الكسكسي كل عيد وتعيط لقاع الجيران ياكلو معانا",
    "merci beaucoup khouya",
    "👍 100 !",
    "",
    "صحااااااا بزااااف عليك يا خويا راك هايل",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A few rows that rules change, and 300 that none does, in two files."""
    made = tmp_path_factory.mktemp("report")
    draw = random.Random(5)
    plain = [" ".join("".join(draw.sample("ابتجحدرسشعفقكلمنهوي", 5)) for _ in range(9)) for _ in range(300)]
    for name, rows in (("own rows.txt", OWN), ("plain.txt", plain)):
        (made / name).write_text("\n".join(rows) + "\n", encoding="utf-8")
    sources = [str(made / "own rows.txt"), str(made / "plain.txt")]
    prepare(["--source", *sources, "--out", str(made / "out"), "--vocab-size", "400", "--shards", "4"])
    report.main([str(made / "out")])
    return made / "out"


@pytest.fixture(scope="module")
def page(folder):
    return (folder / report.HTML).read_text(encoding="utf-8")


def test_the_page_asks_for_nothing_else(page):
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:)""", page)
    assert not re.findall(r"https?://|@import|url\(|<script|<link", page)


def test_the_figures_are_those_of_the_manifest(folder, page):
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    for reason, count in manifest["dropped"].items():
        assert re.search(rf"<b>{reason}</b>.*?<span class=\"n\">{count:,} ", page, re.DOTALL), reason
    for split in manifest["splits"].values():
        assert all(f'<td class="n">{split[unit]:,}</td>' in page for unit in ("rows", "words", "bytes", "tokens"))
    for split, runs in manifest["sources"].items():
        assert split in report.SPLIT_TITLES and all(name in page for name, _ in runs)


def test_samples_are_shown_right_to_left_with_french_isolated(page):
    assert 'class="darija" lang="ar-DZ" dir="rtl">اليوم رحت <bdi lang="fr">la plage</bdi> مع' in page
    assert '<p class="darija" lang="ar-DZ" dir="ltr"><bdi lang="fr">merci beaucoup khouya</bdi></p>' in page


def test_rows_are_text_and_name_nobody(page):
    assert '&lt;<bdi lang="fr">script</bdi>&gt;' in page and "<script" not in page
    assert "0550" not in page and "kamel" not in page and "•" * 12 in page


def test_near_duplicates_stand_side_by_side(page):
    pair = page[page.index("<h3>Nearly the same</h3>") : page.index("<h3>Changed</h3>")]
    assert pair.index("كل عيد") < pair.index("كل جمعة"), "the later row is dropped, the earlier stays"
    assert re.search(r"<tr><td>(\w+)</td><td>\1, earlier</td><td class=\"n\">1</td></tr>", page)


def test_the_same_rows_make_the_same_page(folder, page, tmp_path):
    report.main([str(folder), "--out", str(tmp_path / "new" / "page.html")])
    assert (tmp_path / "new" / "page.html").read_text("utf-8") == page


def test_bad_input_is_one_line_and_2(folder, tmp_path, monkeypatch, capsys):
    whole = (folder / "report.json").read_bytes()
    (tmp_path / "no.html").mkdir()

    def refused(*words):
        capsys.readouterr()
        assert call(monkeypatch, "data_prep.report", *words) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: ")
        return lines[0]

    assert "does not exist" in refused(tmp_path / "nowhere")
    assert "--out" in refused(folder, "--out", tmp_path / "no.html")
    try:
        (folder / "report.json").write_bytes(whole[:-9])
        assert "report.json does not have the SHA-256" in refused(folder)
        (folder / "report.json").unlink()
        assert "report.json is missing" in refused(folder)
    finally:
        (folder / "report.json").write_bytes(whole)
    assert sys.modules["data_prep.report"] is report


@pytest.mark.skipif(browser.missing() is not None, reason=f"looking at pages needs {browser.missing()}")
@pytest.mark.parametrize("width", WIDTHS)
def test_in_a_browser(folder, width):
    with browser.chromium(width, dark=width < 500) as driver:
        driver.get((folder / report.HTML).as_uri())
        assert driver.execute_script("return document.documentElement.scrollWidth") <= width
        directions = "return [...document.querySelectorAll('.darija')].map(p => getComputedStyle(p).direction)"
        assert set(driver.execute_script(directions)) == {"rtl", "ltr"}
        bars = "return [...document.querySelectorAll('.track span')].map(b => b.getBoundingClientRect().width)"
        assert max(driver.execute_script(bars)) > 50
        bins = "return [...document.querySelectorAll('.stack span')].map(b => b.getBoundingClientRect().height)"
        assert max(driver.execute_script(bins)) == pytest.approx(150, abs=2)
        assert not [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]


def test_histogram_by_hand():
    assert histogram(np.array([1, 2, 3, 4, 5, 8, 9, 128, 129, 10**6]), LENGTH_EDGES) == [1, 1, 2, 2, 1, 0, 0, 1, 2]
    assert histogram(np.array([0.5, 1.19, 1.2]), (1.0, 1.2)) == [2, 1], "below the first edge counts in the first bin"
    assert histogram(np.array([]), (1.0, 1.2)) == [0, 0]


@given(st.lists(st.text(max_size=4), max_size=60))
def test_a_sample_is_the_same_each_time(rows):
    sample, again = Sample(), Sample()
    for row in rows:
        sample.offer(row, row)
        again.offer(row, row)
    assert sample.items() == again.items() and len(sample.items()) == min(SAMPLES, len(rows))
    assert set(sample.items()) <= set(rows)


def test_words_are_counted_in_bounded_memory(monkeypatch):
    """A word in every third row keeps its count although 10 words at most are remembered."""
    monkeypatch.setattr("data_prep.statistics.MAX_COUNTED", 10)
    rows = [f"واش {i} {i}" if i % 3 == 0 else f"ك{i}" for i in range(300)]
    counter = WordCounter()
    assert list(counter.through(rows)) == rows
    assert counter.top()[0] == ["واش", 100] and len(counter.counts) <= 12


def test_watch_counts_languages_and_keeps_samples():
    watch = Watch()
    for row in OWN:
        watch(row, clean_row(row, Cleaning("drop-french")))
    assert watch.languages()["rows"] == {"arabic": 6, "french": 1, "arabizi": 0, "other": 1}
    assert set(watch.dropped) == {"no_letters", "empty"}
    assert all(len(text) <= SAMPLE_CHARACTERS + 1 for text in shown("ا" * 1000, "ب"))
    assert watch.changed_samples()["phones"][0][0].startswith("عيطلي على ••••")


@pytest.mark.parametrize(
    "text",
    [
        "x" * 228 + " 0550 12 34 56 yes",  # where the text is cut
        "x" * 225 + " kamel.bensalah@mail.dz",
        "عيطلي 0550\u00a012\u00a034\u00a056",  # as cleaning sees it, with plain spaces
        "عيطلي 0550  12  34  56",
        "عيطلي +213\u200e550\u200e123456",
    ],
)
def test_samples_show_no_part_of_what_is_private(text):
    (said,) = shown(text)
    assert "•" in said and not {"0550", "12", "34", "550", "bensalah", "123456"} & set(re.split(r"[^\w]+", said)), said
    assert shown("نهار 12 ماي\u00a02024") == ["نهار 12 ماي\u00a02024"], "else it stands as it was"
