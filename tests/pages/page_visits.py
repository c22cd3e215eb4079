"""Open a page in a browser, wide, dark and on a phone, and note everything that is wrong with it."""

from __future__ import annotations

import contextlib
import functools
import gzip
import http.server
import io
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Page, TimeoutError

from tools import browser as browsers
from tools.chapters import table_of_contents

PAGES = [name for name, _ in table_of_contents()]


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        """Quiet."""

    def copyfile(self, source, outputfile):
        with contextlib.suppress(ConnectionError):  # the page was left before all of it was there
            super().copyfile(source, outputfile)


class _Compressing(_Quiet):
    """Sends text compressed, as those servers do that publish the book."""

    def send_head(self):
        path = Path(self.translate_path(self.path))
        kind = self.guess_type(path)
        if kind.startswith("image/") or kind == "font/woff2" or not path.is_file():
            return super().send_head()
        content = gzip.compress(path.read_bytes())
        self.send_response(200)
        for name, value in {"Content-Type": kind, "Content-Encoding": "gzip", "Content-Length": len(content)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        return io.BytesIO(content)


@contextlib.contextmanager
def serve(folder, *, compressed=False):
    """A server of ``folder`` on a free port; gives its address."""
    handler = functools.partial(_Compressing if compressed else _Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


PHONE = {"width": 390, "height": 844}
WIDE = {"width": 1280, "height": 900}
# What a browser paints half-way through a transition is nobody's colour.
STILL = "*, *::before, *::after { transition: none !important; animation: none !important; }"

# Elements that stick out of the page on the right and are not inside a box that scrolls by itself.
STICKS_OUT = """() => {
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width) return [];
  const inBox = (e) => { for (let p = e.parentElement; p; p = p.parentElement)
    if (["auto", "scroll", "hidden"].includes(getComputedStyle(p).overflowX) && p !== document.body
        && p !== document.documentElement) return true;
    return false; };
  const out = [...document.body.querySelectorAll("*")]
    .filter((e) => e.getBoundingClientRect().right > width + 1 && !inBox(e))
    .map((e) => `${e.tagName.toLowerCase()}.${e.className}`.slice(0, 80));
  return out.length ? out.slice(0, 5) : ["the page is wider than the screen"];
}"""
# How much of what was seen has moved since (cumulative layout shift).
SHIFT = """() => new Promise((done) => {
  let sum = 0;
  new PerformanceObserver((list) => list.getEntries().forEach((entry) => { sum += entry.value; }))
    .observe({type: "layout-shift", buffered: true});
  setTimeout(() => done(sum), 100);
})"""
# Mathematics that was refused, or not set, and signs that are not of the formulas' own font.
BAD_MATHEMATICS = """() => [
  ...[...document.querySelectorAll("merror")].map((e) => "refused: " + e.textContent),
  ...[...document.querySelectorAll(".math")].filter((e) => !e.querySelector("math"))
    .map((e) => "not set: " + e.textContent.slice(0, 60)),
  ...(document.querySelector("math") && !document.fonts.check("16px 'Book Mathematics'") ? ["no font"] : []),
]"""


# Axe looks at what lies behind each piece of text, for many seconds on a page with much code. Three pieces of a kind
# (the same elements, classes and styles, one within the other) have the colours of all: it is shown these. Of code, all
# other tokens become plain text. The glyphs of a formula are no text to axe: a box of the same size stands for them,
# unless something in it can take the focus.
FEW_OF_A_KIND = """() => {
  const seen = new Map();
  for (const element of document.body.querySelectorAll("*")) {
    if (![...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim())) continue;
    let kind = "";
    for (let e = element; e !== document.body; e = e.parentElement)
      kind += ` ${e.tagName}.${[...e.classList].sort().join(".")} ${e.getAttribute("style") ?? ""}`;
    seen.set(kind, (seen.get(kind) ?? 0) + 1);
    element.dataset.kind = seen.get(kind) <= 3 ? "seen" : "again";
  }
  const focusable = "a[href], button, input, select, textarea, [tabindex]";
  for (const token of document.querySelectorAll("pre span[data-kind=again]"))
    if (!token.querySelector(focusable)) token.replaceWith(token.textContent);
  for (const formula of document.querySelectorAll("math")) {
    if (formula.querySelector(focusable)) continue;
    const {width, height} = formula.getBoundingClientRect();
    const box = document.createElement("span");
    Object.assign(box.style, {display: "inline-block", width: `${width}px`, height: `${height}px`});
    formula.replaceWith(box);
  }
}"""
AXE = Axe()
# Of colours, axe is asked about the first of a kind alone; of all else, about all.
FINDINGS = """options => {
  axe.configure({rules: [{id: "color-contrast", selector: ":not([data-kind=again])"}]});
  return axe.run(options).then(
    ({violations}) => violations.flatMap((rule) => rule.nodes.map((node) => [rule.id, node.html])));
}"""
# The theme looks 300 ms after a change which code is too wide for its box, so that the keyboard can scroll it.
WIDTHS_ARE_KNOWN = """() => ![...document.querySelectorAll("pre[tabindex='-1']")].some(
  (e) => e.scrollWidth > e.clientWidth || e.scrollHeight > e.clientHeight)"""


@dataclass
class Visit:
    """What is wrong with a page: every list is empty when nothing is."""

    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    moved: list[str] = field(default_factory=list)
    mathematics: list[str] = field(default_factory=list)
    access_light: list[str] = field(default_factory=list)
    access_dark: list[str] = field(default_factory=list)
    access_phone: list[str] = field(default_factory=list)
    figures: list[str] = field(default_factory=list)
    sticks_out: list[str] = field(default_factory=list)


def settle(page: Page) -> None:
    """Wait until the fonts are there, and stop all movement."""
    page.add_style_tag(content=STILL)
    page.evaluate("document.fonts.ready.then(() => true)")


def set_mode(page: Page, mode: str) -> None:
    """Light or dark, as the reader's switch does it."""
    page.evaluate("mode => { document.documentElement.dataset.theme = mode; }", mode)
    page.wait_for_timeout(50)


def colours(page: Page) -> list[str]:
    """Axe's findings about contrast: what is left to ask where nothing but colours has changed."""
    return violations(page, {"runOnly": ["color-contrast"]})


def violations(page: Page, options: dict[str, Any] | None = None) -> list[str]:
    """Axe's findings, each with the element it is about."""
    with contextlib.suppress(TimeoutError):  # then axe says which
        page.wait_for_function(WIDTHS_ARE_KNOWN, timeout=3000)
    if page.evaluate("typeof axe === 'undefined'"):
        page.evaluate(AXE.axe_script)
    # Without axe's own requests for the style sheets.
    found = page.evaluate(FINDINGS, {"preload": False, "resultTypes": ["violations"]} | (options or {}))
    return [f"{rule}: {html[:160]}" for rule, html in found]


# Not the picture that stands for the laboratory until it is seen: looking at it makes it go.
FIGURES = ".bd-article img:not(.still img):visible"


def pictures(page: Page) -> list[Image.Image]:
    """The page's figures, as they are seen."""
    shots = [figure.screenshot() for figure in page.locator(FIGURES).all()]
    return [Image.open(io.BytesIO(shot)) for shot in shots]


@contextlib.contextmanager
def watch(page: Page, url: str) -> Iterator[Visit]:
    """Note what the page asks for and what goes wrong; requests to other hosts than the one of ``url`` are not sent."""
    found, here = Visit(), urlsplit(url)

    def only_here(route, request):
        parts = urlsplit(request.url)
        if parts.scheme in ("data", "blob") or (parts.scheme, parts.netloc) == (here.scheme, here.netloc):
            route.continue_()
        else:
            found.foreign.append(request.url)
            route.abort()

    wrong = {
        "console": lambda message: message.type == "error" and found.errors.append(message.text),
        "pageerror": lambda error: found.errors.append(str(error)),
        "response": lambda answer: answer.status >= 400 and found.errors.append(f"{answer.status}: {answer.url}"),
        "requestfailed": lambda request: found.errors.append(f"failed: {request.url}"),
    }
    page.route("**/*", only_here)
    for event, note in wrong.items():
        page.on(event, note)
    try:
        yield found
    finally:
        for event, note in wrong.items():
            page.remove_listener(event, note)
        page.unroute("**/*", only_here)


def visit(page: Page, url: str) -> Visit:
    """Everything that is wrong with the page at ``url``: wide and light, dark, and on a phone."""
    with watch(page, url) as found:
        look(page, url, found)
    return found


def look(page: Page, url: str, found: Visit) -> None:
    page.goto(url)
    shift = page.evaluate(SHIFT)
    found.moved = [f"layout shift {shift:.3f}"] if shift >= 0.02 else []
    settle(page)
    found.mathematics = page.evaluate(BAD_MATHEMATICS)
    wide = page.viewport_size
    page.set_viewport_size(PHONE)
    found.sticks_out = page.evaluate(STICKS_OUT)
    page.evaluate(FEW_OF_A_KIND)
    found.access_phone = violations(page)
    page.set_viewport_size(wide)
    found.access_light = violations(page)
    light = pictures(page)
    set_mode(page, "dark")
    found.access_dark = colours(page)
    found.figures = illegible(light, pictures(page))


# ------------------------------------------------------------------------------------------------ figures in the dark


_levels = np.arange(256) / 255
LINEAR = np.where(_levels <= 0.04045, _levels / 12.92, ((_levels + 0.055) / 1.055) ** 2.4)


def luminance(picture: Image.Image) -> np.ndarray:
    """Relative luminance of every pixel (WCAG 2)."""
    return LINEAR[np.asarray(picture.convert("RGB"))] @ np.array([0.2126, 0.7152, 0.0722])


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


def illegible(light: list[Image.Image], dark: list[Image.Image]) -> list[str]:
    """The figures of a page that cannot be read when it is dark."""
    return [
        f"figure {place}: (background, ink) light {ink(by_day)}, dark {ink(by_night)}"
        for place, (by_day, by_night) in enumerate(zip(light, dark, strict=True), start=1)
        if not legible_in_the_dark(by_day, by_night)
    ]


@pytest.fixture(scope="session")
def browser(browser_type, browser_type_launch_args):
    browser = browsers.launch(browser_type, **browser_type_launch_args)
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def browser_context_args(browser_context_args, base_url):
    # The plugin's own is made once, with the address of whichever folder of tests came first.
    ours = {"base_url": base_url, "viewport": WIDE, "color_scheme": "light", "reduced_motion": "reduce"}
    return browser_context_args | ours


# A page without an address has no memory.
FORGET = "() => { if (origin !== 'null') for (const memory of [localStorage, sessionStorage]) memory.clear(); }"


@pytest.fixture(scope="session")
def window(browser, browser_context_args) -> Iterator[Page]:
    """One page of the browser for all tests: to open another takes longer than most tests do."""
    context = browser.new_context(**browser_context_args)
    yield context.new_page()
    context.close()


@pytest.fixture
def page(window) -> Iterator[Page]:
    """Empty, wide, and without a memory of what was done before."""
    yield window
    window.evaluate(FORGET)
    window.mouse.move(-1, -1)
    window.set_viewport_size(WIDE)
    window.goto("about:blank")
