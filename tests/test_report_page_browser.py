"""The page in a real browser: what is drawn, what a click and a key do, what is asked for, and how it looks."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, Browser, open_browser
from PIL import Image
from report_data import reached
from test_report_page import FIRST, NASTY, ONE, RECORD, RESULT, SETTINGS, SKIP, born, run

from eigen_jax.lineage import Fate
from eigen_jax.report.page import make_comparison, make_page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium; apt-get install chromium")

LATER = (
    born(2, 0, 0.75, parents=(FIRST,), architecture=SKIP, landmarks=reached(0.3, 0.75, thresholds=(0.25,))),
    *(
        born(2, i, None, parents=(FIRST,), landmarks=reached(0.2, thresholds=(0.25,)), fate=Fate.EXTINCT)
        for i in (1, 2)
    ),
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(make_page(run(name=NASTY, individuals=(*RECORD, *LATER))), encoding="utf-8")
    return path


def texts(browser: Browser, selector: str) -> list[str]:
    """What all elements of a kind say."""
    return browser.run(f"[...document.querySelectorAll({json.dumps(selector)})].map((it) => it.textContent.trim())")


def text(browser: Browser, selector: str) -> str:
    return texts(browser, selector)[0]


def count(browser: Browser, selector: str) -> int:
    return len(texts(browser, selector))


def label(browser: Browser, selector: str) -> str:
    return browser.run(f"document.querySelector({json.dumps(selector)}).getAttribute('aria-label')")


def check_quiet(browser: Browser) -> None:
    assert browser.complaints() == []
    assert browser.requests() == []


def test_a_click_on_an_individual_draws_its_network_and_its_learning_curve(browser, page):
    browser.open(page, width=1400)
    assert text(browser, "#individual h3") == "Individual 2.0"  # the best
    assert count(browser, "#tree-plot .node") == 7
    browser.click(".node[data-position='3']")
    assert text(browser, "#individual h3") == "Individual 1.1"
    assert f"failed: {NASTY}" in texts(browser, "#individual dd")
    assert count(browser, "#individual svg.network rect.layer") == 3 + 2
    drawn = texts(browser, "#individual svg.network text")
    assert {"image", "3\N{MULTIPLICATION SIGN}3, 16", "max pool", "10 classes"} <= set(drawn)
    browser.click(".node[data-position='4']")
    assert label(browser, "#individual .plot > svg") == "2.0: 30.0 % after 100 steps, 75.0 % after 200 steps"
    assert texts(browser, "#individual tbody td:nth-child(3)") == ["image", "0", "0, 1"]
    assert count(browser, ".edge.ancestor") == 1
    check_quiet(browser)


def test_arrow_keys_move_in_the_tree_and_buttons_to_kin(browser, page):
    browser.open(page, width=1400)
    browser.click(".node[data-position='0']")
    for key, name in (("ArrowDown", "0.1"), ("ArrowRight", "1.1"), ("ArrowUp", "1.0"), ("End", "2.2"), ("Home", "0.0")):
        browser.press(key)
        assert text(browser, "#individual h3") == f"Individual {name}"
        assert browser.run("document.activeElement.getAttribute('aria-label')").startswith(f"{name}, ")
    assert count(browser, ".node[tabindex='0']") == 1
    browser.click("#individual .wide .link")  # its first child
    assert text(browser, "#individual h3") == "Individual 1.0"
    check_quiet(browser)


def test_charts_say_what_they_show_and_can_be_changed(browser, page):
    browser.open(page, width=1400)
    told = "The best validation accuracy rises from 50.0 % to 75.0 % in 3 generations."
    assert label(browser, "#progress-chart .plot > svg") == told
    # Of later ones, training FLOPs are not known.
    assert texts(browser, "#progress-chart label") == ["generation", "seconds"]
    browser.click("#progress-chart label:nth-of-type(2) input")
    assert "one after another" in text(browser, "#progress-chart .plot > svg")
    assert count(browser, "#thresholds-chart .plot > svg .mark circle") == 5  # but for a star, and who failed before
    browser.click("#everyone summary")
    assert texts(browser, "#everyone tbody th") == ["0.0", "0.1", "1.0", "1.1", "2.0", "2.1", "2.2"]
    check_quiet(browser)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_fits_its_width_and_is_drawn_in_its_colours(browser, page, tmp_path, width, dark):
    browser.open(page, width=width, dark=dark)
    browser.screenshot(tmp_path / "page.png")
    picture = Image.open(tmp_path / "page.png").convert("RGB")
    assert picture.width == browser.run("document.documentElement.scrollWidth") == width
    assert picture.getpixel((2, 2)) == ((22, 24, 27) if dark else (251, 251, 250))
    colours: Any = picture.getcolors(1 << 24)
    assert len(colours) > 50
    widths = browser.run("[...document.querySelectorAll('.plot > svg')].map((it) => it.getBoundingClientRect().width)")
    assert len(widths) == 5
    assert min(widths) > 300
    check_quiet(browser)


@pytest.mark.parametrize(
    ("fields", "columns"),
    [
        ({"individuals": ()}, 0),
        ({"individuals": RECORD[1:2]}, 1),
        ({"individuals": RECORD[3:]}, 1),
        ({"individuals": (), "settings": SETTINGS | {"retrained": "f"}, "result": RESULT, "network": ONE}, 0),
        ({"confusion": [[0] * 30] * 30, "result": RESULT, "network": SKIP, "mistakes": ()}, 1),
        ({"individuals": [dataclasses.replace(RECORD[0], generation=i) for i in range(25)]}, 3),
        ({"settings": SETTINGS | {"fitness": "own:fitness"}}, 1),
    ],
    ids=[
        "no generation",
        "all extinct",
        "all failed",
        "retrained",
        "thirty classes",
        "one a generation",
        "own fitness",
    ],
)
def test_pages_of_all_kinds_are_drawn_without_errors(browser, tmp_path, fields, columns):
    path = tmp_path / "report.html"
    path.write_text(make_page(run(**fields)), encoding="utf-8")
    browser.open(path, width=400)
    assert count(browser, "main > section") >= 2
    places = "[...document.querySelectorAll('.halo')].map((it) => it.getAttribute('cx'))"
    assert browser.run(f"new Set({places}).size") == columns  # of ten, where generations are of one or two
    check_quiet(browser)


def test_several_runs_are_drawn_beside_each_other(browser, tmp_path):
    path = tmp_path / "both.html"
    path.write_text(make_comparison([run(), run(name="other", individuals=RECORD[2:])]), encoding="utf-8")
    browser.open(path, width=1400)
    assert label(browser, "#comparison-chart .plot > svg") == "a run: 50.0 %; other: 25.0 %"
    assert count(browser, "#comparison-chart .plot > svg path.line") == 2
    check_quiet(browser)
