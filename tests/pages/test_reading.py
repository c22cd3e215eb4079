"""What a reader does on the pages: searches, turns them dark, folds out a solution."""

from __future__ import annotations

import pytest
from PIL import Image, ImageDraw

from tests.pages.page_visits import PAGES, legible_in_the_dark, settle
from tools.build import SITE


def test_an_illegible_figure_is_noticed():
    def drawing(paper, pen):
        picture = Image.new("RGB", (200, 100), paper)
        ImageDraw.Draw(picture).rectangle((20, 20, 120, 60), fill=pen)
        return picture

    light = drawing("white", "black")
    assert legible_in_the_dark(light, drawing("#14171a", "#eeeeee"))
    assert not legible_in_the_dark(light, drawing("#14171a", "#222222"))  # black ink on a dark page
    assert not legible_in_the_dark(light, light)  # a white box in the dark


def test_search_finds_a_word(page):
    page.goto("search.html?q=notation")
    page.wait_for_selector("#search-results li a")
    assert page.locator("#search-results li a").count() >= 1


def test_search_says_when_there_is_nothing(page):
    page.goto("search.html?q=zzyzxqqq")
    page.wait_for_selector("#search-results p.search-summary:not(:empty)")
    assert page.locator("#search-results li a").count() == 0


def test_the_search_box_opens_from_the_keyboard(page):
    page.goto(f"{PAGES[0]}.html")
    settle(page)
    page.keyboard.press("Control+k")
    page.keyboard.type("hessian")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=hessian*")


def test_the_switch_turns_the_page_dark_and_it_stays_dark(page):
    page.goto(f"{PAGES[1]}.html")
    settle(page)
    modes = set()
    for _ in range(3):
        page.locator(".theme-switch-button:visible").first.click()
        modes.add(page.evaluate("document.documentElement.dataset.theme"))
    assert {"light", "dark"} <= modes
    kept = page.evaluate("document.documentElement.dataset.theme")
    page.goto(f"{PAGES[2]}.html")
    assert page.evaluate("document.documentElement.dataset.theme") == kept


def test_a_solution_folds_out(page):
    name = next(
        (p for p in PAGES if "solution" in (SITE / f"{p}.html").read_text("utf-8") and p.startswith("book/0")), None
    )
    if name is None:
        pytest.fail("no chapter has a solution")
    page.goto(f"{name}.html")
    settle(page)
    folded = page.locator(".solution.dropdown, .solution details, .solution.toggle").first
    before = folded.bounding_box()["height"]
    folded.locator("summary, .toggle-button, .admonition-title").first.click()
    page.wait_for_function("([one, before]) => one.offsetHeight > before + 20", arg=[folded.element_handle(), before])


# What readers type, and the pages of which one should come first.
QUERIES = {
    "sign": ("01-upweighting", "conventions"),
    "harmful": ("01-upweighting", "08-sixty-influences", "21-real-data"),
    "leave one out": ("05-leave-one-out",),
    "damping": ("11-damping",),
    "LiSSA": ("18-lissa",),
    "Cook's distance": ("depth-rows-of-a-regression", "24-what-statisticians-had", "glossary"),
    "condition number": ("07-hessian", "10-how-much-curvature", "17-conjugate-gradients"),
    "conjugate gradients": ("17-conjugate-gradients",),
    "K-FAC": ("19-approximate-curvature",),
    "Gauss-Newton": ("19-approximate-curvature",),
    "TRAK": ("20-projections-and-low-rank",),
    "Arnoldi": ("20-projections-and-low-rank",),
    "argmin": ("03-argmin",),
    "implicit function theorem": ("03-argmin",),
    "Hessian": ("07-hessian",),
    "retraining": ("09-sixty-retrainings",),
    "early stopping": ("13-stopped-early",),
    "wrong labels": ("21-real-data",),
    "regularization": ("your-own-model", "07-hessian", "10-how-much-curvature"),  # whoever spells it so
    "checklist": ("15-checklist",),
    "dask": ("22-more-than-one-machine",),
    "install": ("running",),
}


# As for a query in the address, on a page that has the index already; and without a look into every page that is found.
SEARCH = """query => {
  DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
  document.getElementById("search-results").replaceChildren();
  Search.performSearch(query);
}"""


def test_the_right_page_comes_first(page):
    wrong = {}
    page.goto("search.html?q=book")
    for query, wanted in QUERIES.items():
        page.evaluate(SEARCH, query)
        page.wait_for_selector("#search-results p.search-summary:not(:empty)")
        found = page.locator("#search-results li a")
        first = found.first.get_attribute("href") if found.count() else "nothing"
        if not first.removeprefix("book/").startswith(wanted):
            wrong[query] = first
    assert not wrong
