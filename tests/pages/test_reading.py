"""What a reader does on the pages: looks at figures in the dark, searches, folds out a solution, takes the notebook."""

from __future__ import annotations

import io

import numpy as np
import pytest
from page_visits import PAGES, WIDE, set_mode, settle
from PIL import Image, ImageDraw

from tools.build import SITE

WITH_FIGURES = [
    page
    for page in PAGES
    if (SITE / f"{page}.html").is_file() and "_images/" in (SITE / f"{page}.html").read_text("utf-8")
]


def luminance(picture: Image.Image) -> np.ndarray:
    """Relative luminance of every pixel (WCAG 2)."""
    rgb = np.asarray(picture.convert("RGB"), dtype=float) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


def ink(picture: Image.Image) -> tuple[float, float]:
    """The background's luminance (the commonest), and the share of pixels that stand out from it by 3 to 1 or more."""
    values = luminance(picture)
    counts, edges = np.histogram(values, bins=200, range=(0, 1))
    background = float(edges[counts.argmax()])
    lighter, darker = np.maximum(values, background), np.minimum(values, background)
    return background, float(np.mean((lighter + 0.05) / (darker + 0.05) >= 3))


def legible_in_the_dark(light: Image.Image, dark: Image.Image) -> bool:
    """A dark background, and about as much that stands out from it as on the light page."""
    (_, before), (background, after) = ink(light), ink(dark)
    return background < 0.1 and after > 0.5 * before and after > 0.002


@pytest.mark.parametrize("page", WITH_FIGURES)
def test_figures_are_legible_in_the_dark(site, chromium, page):
    context = chromium.new_context(viewport=WIDE, color_scheme="light")
    tab = context.new_page()
    tab.goto(f"{site}/{page}.html")
    settle(tab)
    figures = tab.locator(".bd-article img:visible").all()
    assert figures
    shots = {}
    for mode in ("light", "dark"):
        set_mode(tab, mode)
        shots[mode] = [Image.open(io.BytesIO(figure.screenshot())) for figure in figures]
    context.close()
    for place, (light, dark) in enumerate(zip(shots["light"], shots["dark"], strict=True), start=1):
        assert legible_in_the_dark(light, dark), f"figure {place}: light {ink(light)}, dark {ink(dark)}"


def test_an_illegible_figure_is_noticed():
    def drawing(paper, pen):
        picture = Image.new("RGB", (200, 100), paper)
        ImageDraw.Draw(picture).rectangle((20, 20, 120, 60), fill=pen)
        return picture

    light = drawing("white", "black")
    assert legible_in_the_dark(light, drawing("#14171a", "#eeeeee"))
    assert not legible_in_the_dark(light, drawing("#14171a", "#222222"))  # black ink on a dark page
    assert not legible_in_the_dark(light, light)  # a white box in the dark


@pytest.fixture
def tab(chromium):
    context = chromium.new_context(viewport=WIDE)
    yield context.new_page()
    context.close()


def test_search_finds_a_word(site, tab):
    tab.goto(f"{site}/search.html?q=notation")
    tab.wait_for_selector("#search-results li a")
    assert tab.locator("#search-results li a").count() >= 1


def test_search_says_when_there_is_nothing(site, tab):
    tab.goto(f"{site}/search.html?q=zzyzxqqq")
    tab.wait_for_selector("#search-results p.search-summary:not(:empty)")
    assert tab.locator("#search-results li a").count() == 0


def test_the_search_box_opens_from_the_keyboard(site, tab):
    tab.goto(f"{site}/{PAGES[0]}.html")
    settle(tab)
    tab.keyboard.press("Control+k")
    tab.keyboard.type("hessian")
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/search.html?q=hessian*")


def test_the_switch_turns_the_page_dark_and_it_stays_dark(site, tab):
    tab.goto(f"{site}/{PAGES[1]}.html")
    settle(tab)
    modes = set()
    for _ in range(3):
        tab.locator(".theme-switch-button:visible").first.click()
        modes.add(tab.evaluate("document.documentElement.dataset.theme"))
    assert {"light", "dark"} <= modes
    kept = tab.evaluate("document.documentElement.dataset.theme")
    tab.goto(f"{site}/{PAGES[2]}.html")
    assert tab.evaluate("document.documentElement.dataset.theme") == kept


def test_a_solution_folds_out(site, tab):
    page = next(
        (p for p in PAGES if "solution" in (SITE / f"{p}.html").read_text("utf-8") and p.startswith("book/0")), None
    )
    if page is None:
        pytest.fail("no chapter has a solution")
    tab.goto(f"{site}/{page}.html")
    settle(tab)
    folded = tab.locator(".solution.dropdown, .solution details, .solution.toggle").first
    before = folded.bounding_box()["height"]
    folded.locator("summary, .toggle-button, .admonition-title").first.click()
    tab.wait_for_timeout(400)
    assert folded.bounding_box()["height"] > before + 20
