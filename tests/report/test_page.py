"""The page of every search: what it says, the numbers behind its figures, and how a real browser lays it out."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from raypipe.events.schema import FEATURES
from raypipe.report.background import sculpting
from raypipe.report.html import FEW, Section, image, say, table_of, with_error, write_html
from raypipe.report.numbers import HEAD, numbers_of
from raypipe.report.style import new_figure, save_figures, svg
from raypipe.stats.bins import sculpting_test
from tests.report.pages import PAGES

QUIET = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--enable-logging=stderr", "--v=0", "--hide-scrollbars"),
]
MEASURE = """<script>
document.querySelectorAll("details").forEach(d => d.open = true);
const box = e => { const r = e.getBoundingClientRect(); return [r.width, r.height]; };
const all = (what, of) => [...document.querySelectorAll(what)].map(of);
const outside = e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest(".wide, pre");
parent.document.body.dataset.measured = JSON.stringify({
  inner: innerWidth, wide: document.documentElement.scrollWidth, pictures: all("svg, img", box),
  lost: all('a[href^="#"]', a => a.getAttribute("href")).filter(h => !document.getElementById(h.slice(1))),
  outside: all("body *", e => e).filter(outside).map(e => e.outerHTML.slice(0, 80)),
  small: all("svg text:not(:has(tspan)), svg tspan", t => {
    const scale = t.getScreenCTM();
    return parseFloat(getComputedStyle(t).fontSize) * Math.hypot(scale.a, scale.b);
  })
});
</script></body>"""
"""Run in a copy of the page, which has no script of its own."""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Folder and summary of the page of a search, each made once."""

    @cache
    def made(name: str) -> tuple[Path, dict]:
        folder = tmp_path_factory.mktemp(name)
        return folder, PAGES[name](folder)

    return made


def numbers(path: Path) -> list[dict[str, str]]:
    """The rows of the CSV of a figure."""
    return list(csv.DictReader(line for line in path.read_text().splitlines() if not line.startswith("#")))


@pytest.mark.parametrize("name", PAGES)
def test_a_page_holds_all_it_needs(pages, name):
    folder, summary = pages(name)
    page = (folder / "report.html").read_text()
    assert "http" not in page
    assert "<script" not in page
    verdict = re.search(r'<p class="verdict">(.*?)</p>', page, re.DOTALL)[1]
    assert re.search("closes|does NOT close", verdict)
    for words in ("<dt>Asked</dt>", "<dt>Found</dt>", "<details>", "Provenance", summary["config_hash"], "numpy"):
        assert words in page
    links = re.findall(r'download="(\w+)\.csv" href="data:text/csv;charset=utf-8;base64,([^"]*)"', page)
    assert len(links) == page.count("<figure>") == page.count("<svg ") > 1
    for figure, given in links:
        assert base64.b64decode(given) == (folder / "figures" / f"{figure}.csv").read_bytes()
        assert numbers(folder / "figures" / f"{figure}.csv")
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids))


def test_the_numbers_of_a_page_are_those_of_the_summary(pages):
    folder, summary = pages("contrastive")
    (entry,) = [e for e in summary["sculpting"] if e["signal"] == "none"]
    rows = [row for row in numbers(folder / "figures" / "sculpting.csv") if row["curve"] == "after the cut"]
    counts = np.array([float(row["y"]) for row in rows]) * np.diff(entry["edges"])
    np.testing.assert_allclose(counts, entry["after"], rtol=1e-4)
    page = (folder / "report.html").read_text()
    two = next(e for e in summary["results"] if e["signal"] == "wn_150")
    assert f"{with_error(two['z_after'], 1)} sigma; SIC" in page
    assert FEW in with_error(two["z_after"])
    assert "means little" in page
    assert "≥ " in page
    folder, summary = pages("table")
    rows = [row for row in numbers(folder / "figures" / "mass.csv") if row["curve"] == "data"]
    assert sum(float(row["y"]) for row in rows) == 24_120
    assert f"{summary['rows'][0]['z_after']:.2f}" in (folder / "report.html").read_text()


def test_the_page_says_what_the_loudest_excess_is(pages):
    folder, summary = pages("contrastive")
    page, what = (folder / "report.html").read_text(), summary["identity"]
    injected = next(e for e in summary["results"] if e["signal"] == "wn_150")
    assert what["z_after"] == max(injected["z_after"]["values"])
    assert what["trial"].startswith("wn_150 at 4, instance")
    first, *rest = what["labels"]
    assert first["label"] == "chargino-neutralino"
    assert len(rest) == 3
    assert first["excess"] > 3.5 * first["error"]
    section = page[page.rindex("What is it?") : page.rindex("Background model")]
    assert f"{what['trial']}), after the cut at 10.0%" in section
    assert f"{first['excess']:.1f} ± {first['error']:.1f}" in section
    shown = [f">{e['event_id']}<" in section for e in what["list"]]
    assert shown == [True] * 20 + [False] * 30
    assert [e["feature"] for e in what["features"]] == list(FEATURES)


def test_numbers_are_read_off_a_figure():
    figure, (axis,) = new_figure()
    axis.plot([1, 2], [3, 4], label="curve")
    axis.errorbar([1.5], [5], [0.5], fmt="o", label="_point")
    axis.errorbar([], [], [], fmt="o", label="all withheld")
    axis.errorbar([1, 2], [np.nan, 6], [np.nan, 1], fmt="o", label="one withheld")
    axis.stairs([7, 8], [0, 1, 3], label="bins")
    axis.fill_between([1, 2, 3], [0, 1, 0], [2, 3, 2], label="band")
    axis.axhline(9, label="guide")
    axis.set(xlabel="mass", ylabel="events", title="a title")
    told, *rows = csv.reader(io.StringIO(numbers_of(figure)))
    assert "; ".join(told) == "# panel 1: a title; x: mass; y: events"
    assert tuple(rows.pop(0)) == HEAD
    assert [row[1:] for row in rows] == [
        ["point", "1.5", "", "5", "4.5", "5.5"],
        ["one withheld", "1", "", "", "", ""],
        ["one withheld", "2", "", "6", "5", "7"],
        *(["curve", x, "", y, "", ""] for x, y in ("13", "24")),
        ["bins", "0", "1", "7", "", ""],
        ["bins", "1", "3", "8", "", ""],
        *(["band", x, "", "", low, high] for x, low, high in ("102", "213", "302")),
    ]


def test_a_figure_is_text_and_the_same_for_the_same_numbers(tmp_path):
    def drawn():
        figure, axes = new_figure(2)
        for axis in axes:
            axis.errorbar([1, 2], [3, 4], [1, 1], fmt="o", label="α < β & γ")
            axis.legend()
        return figure

    assert svg(drawn(), "a") == svg(drawn(), "a") != svg(drawn(), "b")
    paths = save_figures({"one": drawn(), "none": None}, tmp_path, "raypipe simulation")
    assert list(paths) == ["one"]
    shown = image(paths["one"], "caption")["svg"]
    for words in (">raypipe simulation</text>", ">α &lt; β &amp; γ</text>", "var(--x000000, #000000)"):
        assert words in shown
    assert set(re.findall(r"url\(#(\w+)\)|href=\"#(\w+)\"", shown)) <= {
        (i, "") if i.startswith("p") else ("", i) for i in re.findall(r' id="(\w+)"', shown)
    }


def test_words_and_columns_of_what_there_is():
    quoted = {"mean": 1.23, "standard_error": 0.4, "values": [1.0, 2.0, 3.0]}
    entry = {
        "signal": "none",
        "strength": 0.0,
        "z": quoted,
        "few": quoted | {"values": [1.0, 2.0]},
        "nan": float("nan"),
    }
    assert say("{what}: {z:1} ({z:all}); {few}; {nan:.1f}; {gone:2|withheld}; {nan:.1f} ± {gone:.1f}", entry) == (
        "no signal: 1.2 ± 0.4 (+1.0, +2.0, +3.0); 1.23 ± 0.40†; -; withheld; -"
    )
    table = table_of({"a": "{a}", "b?": "{b}", "c=": "{c}"}, [{"a": 1, "c": 2}, {"a": 3, "c": 2}])
    assert (table.head, table.rows) == (["a"], [["1"], ["3"]])
    table = table_of({"a": "{a}", "b?": "{b}", "c=": "{c}"}, [{"a": 1, "b": 0, "c": 2}, {"a": 3, "c": 4}])
    assert (table.head, table.rows) == (["a", "b", "c"], [["1", "0", "2"], ["3", "-", "4"]])


def test_the_stack_of_copies_knows_no_more_than_one():
    """χ² of k sets with the same events is k times that of one, and so is what it is divided by."""
    rng = np.random.default_rng(1)
    edges = np.linspace(105, 160, 56)
    mass = rng.uniform(105, 160, 4000)
    passed = rng.random(4000) < 0.05 + 0.05 * (mass > 130)
    arrays = {"mass_edges": edges, "mass_before_background": np.histogram(mass, edges)[0]}
    arrays["mass_after_background"] = np.histogram(mass[passed], edges)[0]
    row = {"key": "", "signal": "none", "strength": 0.0, "working_point": 0.1, "sculpting_p": 0.5}
    row["instance_overlap"] = 0.99  # the most that is believed
    (one,) = sculpting([row], lambda key: arrays)
    assert one["chi2"] == pytest.approx(sculpting_test(mass, passed, edges[::5])[0])
    assert (one["ndf"], one["below"], sum(one["before"])) == (10, 0, 4000)
    (four,) = sculpting([row] * 4, lambda key: arrays)
    assert four["chi2"] == pytest.approx(one["chi2"], rel=0.01)
    (apart,) = sculpting([row | {"instance_overlap": 0.0}] * 4, lambda key: arrays)
    assert apart["chi2"] == pytest.approx(4 * one["chi2"])
    assert apart["p"] < one["p"] < 1e-3


def measured(page: Path, width: int, scratch: Path) -> tuple[dict, str]:
    """What a browser makes of a page: `MEASURE`, and what its console says.

    In a frame, since a window has a least width.
    """
    copy, inner = scratch / "measured.html", page.read_text().replace("</body>", MEASURE)
    frame = f'<iframe width="{width}" height="2000" style="border: 0" srcdoc="{html.escape(inner)}"></iframe>'
    copy.write_text(f'<!doctype html><link rel="icon" href="data:,"><body style="margin: 0">{frame}</body>')
    browser = [shutil.which("chromium"), *QUIET, f"--user-data-dir={scratch / 'profile'}"]
    asked = ["--window-size=1400,2000", "--dump-dom", copy.as_uri()]
    done = subprocess.run([*browser, *asked], capture_output=True, text=True, timeout=300, check=True)
    return json.loads(html.unescape(re.search(r'data-measured="([^"]*)"', done.stdout)[1])), done.stderr


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium here (apt-get install chromium)")
@pytest.mark.parametrize("width", [400, 1300])
@pytest.mark.parametrize("name", PAGES)
def test_a_browser_shows_it(pages, name, width, tmp_path):
    found, console = measured(pages(name)[0] / "report.html", width, tmp_path)
    assert "CONSOLE" not in console, console
    assert found["inner"] == width
    assert found["wide"] <= width
    assert found["outside"] == []
    assert found["lost"] == []
    assert len(found["pictures"]) > 1
    assert all(w > 200 and h > 150 for w, h in found["pictures"]), found["pictures"]
    assert min(found["small"]) > 5.5, sorted(found["small"])[:9]  # pixels


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium here (apt-get install chromium)")
def test_the_measurement_sees_what_is_wrong(tmp_path):
    write_html(tmp_path / "bad.html", "bad", "", ["verdict"], [Section("of here", code="x")])
    page = (tmp_path / "bad.html").read_text()
    bad = '<a href="#nowhere">x</a><div style="width: 3000px">wide</div><img src="gone.png">'
    (tmp_path / "bad.html").write_text(page.replace("</body>", f"{bad}<script>gone()</script></body>"))
    found, console = measured(tmp_path / "bad.html", 400, tmp_path)
    assert "gone is not defined" in console
    assert found["lost"] == ["#nowhere"]
    assert found["wide"] >= 3000
    assert any("3000px" in e for e in found["outside"])
