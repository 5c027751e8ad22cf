"""The report as a file and as a page in a browser."""

import html
import re
from types import SimpleNamespace
from typing import Any, cast

import pytest
from compare_samples import SMALL_PRESETS, record, write_run

from compare import browser, report
from compare.checks import Check
from compare.command import main

WIDTHS = (360, 1200)


@pytest.fixture(scope="module")
def folder(small_dataset, tmp_path_factory):
    """A report with two runs, one with markup for a name."""
    out = tmp_path_factory.mktemp("report")
    runs = [
        write_run(out / "<b>bold & brave<b>", [record(step) for step in range(1, 30)]),
        write_run(out / "a|b", [record(1), record(5)]),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("compare.setup.presets", lambda: SMALL_PRESETS)
        assert main(["--data", str(small_dataset), "--out", str(out / "out"), "--runs", *map(str, runs)]) == 0
    return out / "out"


@pytest.fixture(scope="module")
def page(folder):
    return (folder / report.HTML).read_text(encoding="utf-8")


def test_the_page_asks_for_nothing_else(page):
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:)""", page)
    assert not re.findall(r"https?://|@import|url\(|<script|<link", page)


def test_the_verdict_comes_first(page):
    body = page[page.index("<body>") :]
    assert body.index("The twins agree") < body.index("<h2>")


def test_darija_is_set_right_to_left_with_french_isolated(page):
    assert 'class="darija" lang="ar-DZ" dir="rtl"' in page
    assert '<bdi lang="fr"><b>cette année</b>' in page


def test_names_are_text(page):
    assert "&lt;b&gt;bold &amp; brave&lt;b&gt;" in page and "<b>bold" not in page


def test_markdown_says_the_same(folder, page):
    text = (folder / report.MARKDOWN).read_text(encoding="utf-8")
    assert "**The twins agree" in text and "![Training loss" in text and "a\\|b" in text and "<b>bold" not in text
    for section in set(re.findall(r'<td class="first">((?:forward|curves|handover|generate)[^<]*)</td>', page)):
        assert f"| {report.cell(html.unescape(section))} |" in text


def test_tables_of_markdown_are_rectangular(folder):
    text = (folder / report.MARKDOWN).read_text(encoding="utf-8")
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        rows = [re.sub(r"\\\|", "", row).count("|") for row in table.splitlines()]
        assert len(set(rows)) == 1, table


@pytest.mark.skipif(browser.missing() is not None, reason=f"looking at pages needs {browser.missing()}")
@pytest.mark.parametrize("width", WIDTHS)
def test_in_a_browser(folder, width):
    with browser.chromium(width) as driver:
        driver.get((folder / report.HTML).as_uri())
        assert driver.execute_script("return window.innerWidth") == width
        assert driver.execute_script("return document.documentElement.scrollWidth") <= width
        images = "return [...document.images].map(i => i.complete && i.naturalWidth > 0)"
        assert all(driver.execute_script(images)) and driver.execute_script("return document.images.length") == 4
        directions = "return [...document.querySelectorAll('.darija')].map(p => getComputedStyle(p).direction)"
        assert set(driver.execute_script(directions)) >= {"rtl"}
        assert not [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.mark.skipif(browser.missing() is not None, reason=f"looking at pages needs {browser.missing()}")
def test_dark_and_light_differ_and_can_be_read(folder):
    colours = []
    for dark in (False, True):
        with browser.chromium(800, dark=dark) as driver:
            driver.get((folder / report.HTML).as_uri())
            style = "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
            colours.append([sum(map(int, re.findall(r"\d+", c)[:3])) for c in driver.execute_script(style)])
    (light_ink, light_paper), (dark_ink, dark_paper) = colours
    assert light_paper - light_ink > 400 and dark_ink - dark_paper > 400


def test_numbers_and_margins():
    assert [report.number(v) for v in (None, 0.0, 12, 4.56e-7)] == ["-", "0", "12", "4.6e-07"]
    assert [report.margin(v) for v in (float("inf"), 123.4, 1.5, 0.0)] == ["equal", "123 x", "1.5 x", "0 x"]
    assert report.number(float("nan")) == "nan" and report.number(float("inf")) == "inf"


def test_the_verdict_names_what_failed():
    bad = Check("curves", "loss", 1.0, 1e-5)
    found: Any = SimpleNamespace(checks=[bad], controls=[], broken=None)
    outcome = report.Outcome("tiny", cast(Any, None), found, None, {}, 0.0)
    assert outcome.verdict == "The twins differ: 1 of 1 checks failed, the worst is curves, loss."
    assert outcome.closest().startswith("Furthest over its limit: curves, loss")
