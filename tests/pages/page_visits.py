"""Open a page in a browser, wide, dark and on a phone, and note everything that is wrong with it."""

from __future__ import annotations

import functools
import http.server
import threading
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from tools.chapters import table_of_contents

PAGES = [name for name, _ in table_of_contents()]


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        """Quiet."""


def serve(folder):
    """A server of ``folder`` on a free port; returns it and its address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_address[1]}"


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
# Mathematics that MathJax refused, or never saw.
BAD_MATHEMATICS = """() => [
  ...[...document.querySelectorAll("mjx-merror, merror, [data-mml-node=merror]")]
    .map((e) => "refused: " + e.textContent),
  ...[...document.querySelectorAll(".math")].filter((e) => !e.querySelector("mjx-container"))
    .map((e) => "not rendered: " + e.textContent.slice(0, 60)),
]"""


@dataclass
class Visit:
    """What is wrong with a page: every list is empty when nothing is."""

    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    mathematics: list[str] = field(default_factory=list)
    access_light: list[str] = field(default_factory=list)
    access_dark: list[str] = field(default_factory=list)
    sticks_out: list[str] = field(default_factory=list)


def settle(page: Page) -> None:
    """Wait until mathematics and fonts stand, and stop all movement."""
    page.add_style_tag(content=STILL)
    page.evaluate("window.MathJax && MathJax.startup && MathJax.startup.promise")
    page.evaluate("document.fonts.ready.then(() => true)")


def set_mode(page: Page, mode: str) -> None:
    """Light or dark, as the reader's switch does it."""
    page.evaluate("mode => { document.documentElement.dataset.theme = mode; }", mode)
    page.wait_for_timeout(50)


def violations(page: Page) -> list[str]:
    """Axe's findings, each with the element it is about (without its own requests for the style sheets)."""
    found = Axe().run(page, options={"preload": False}).response["violations"]
    return [f"{rule['id']}: {node['html'][:160]}" for rule in found for node in rule["nodes"]]


def visit(browser: Browser, url: str) -> Visit:
    """Everything that is wrong with the page at ``url``; requests to other hosts are noted and not sent."""
    found, host = Visit(), urlsplit(url).netloc
    context = browser.new_context(viewport=WIDE, reduced_motion="reduce", color_scheme="light")

    def only_here(route, request):
        parts = urlsplit(request.url)
        if parts.scheme in ("data", "blob") or (parts.scheme == urlsplit(url).scheme and parts.netloc == host):
            route.continue_()
        else:
            found.foreign.append(request.url)
            route.abort()

    context.route("**/*", only_here)
    page = context.new_page()
    page.on("console", lambda message: message.type == "error" and found.errors.append(message.text))
    page.on("pageerror", lambda error: found.errors.append(str(error)))
    page.on("response", lambda answer: answer.status >= 400 and found.errors.append(f"{answer.status}: {answer.url}"))
    page.on("requestfailed", lambda request: found.errors.append(f"failed: {request.url}"))
    page.goto(url)
    settle(page)
    found.mathematics = page.evaluate(BAD_MATHEMATICS)
    found.access_light = violations(page)
    set_mode(page, "dark")
    found.access_dark = violations(page)
    page.set_viewport_size(PHONE)
    page.wait_for_timeout(100)
    found.sticks_out = page.evaluate(STICKS_OUT)
    context.close()
    return found
