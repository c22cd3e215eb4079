"""``python -m benchmarks.pages [--lighthouse PAGE ...]``: the frames of a drag in the laboratory, and Lighthouse.

Both want a quiet machine and a built book (`make book`). Lighthouse, as a phone, needs Node and
`npm install -g lighthouse@13`; it is asked about the pages that are named, such as book/lab and book/03-argmin.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from itertools import pairwise

from playwright.sync_api import Browser, sync_playwright

from benchmarks.measure import machine
from tests.pages.page_visits import PHONE, WIDE, serve
from tools import browser as browsers
from tools.build import SITE

SETTLED = "document.querySelector('.laboratory').app?.settled"
# Point 31 is moved a little in every frame, as a hand moves it; when each frame came, in milliseconds.
DRAG = """() => new Promise((done) => {
  const { app } = document.querySelector(".laboratory");
  const came = [];
  const move = (now) => {
    came.push(now);
    if (came.length > 300) {
      app.end();
      return done(came);
    }
    app.move("p", 31, [1.8 - 0.004 * came.length, -0.55 + 0.002 * came.length]);
    requestAnimationFrame(move);
  };
  app.begin();
  requestAnimationFrame(move);
})"""


def frames(browser: Browser, address: str, viewport: dict[str, int], slower: int) -> list[float]:
    """How long each frame of a drag takes, in milliseconds, on a processor that is ``slower`` times slower."""
    page = browser.new_page(viewport=viewport)
    page.goto(f"{address}book/lab.html")
    page.locator(".laboratory").scroll_into_view_if_needed()
    page.wait_for_function(SETTLED, timeout=120_000)
    page.context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": slower})
    came = page.evaluate(DRAG)
    page.close()
    return [later - sooner for sooner, later in pairwise(came)]


def lighthouse(address: str, page: str, chromium: str) -> dict[str, float]:
    """Lighthouse's scores, of 100, for a page on a phone; and when the largest thing is painted, in seconds."""
    program = shutil.which("lighthouse") or sys.exit("There is no Lighthouse: npm install -g lighthouse@13")
    flags = f"--chrome-flags=--headless=new {' '.join(browsers.QUIET)}"
    run = subprocess.run(
        [program, f"{address}{page}.html", "--output=json", "--quiet", flags],
        env=os.environ | {"CHROME_PATH": chromium}, capture_output=True, text=True, encoding="utf-8", check=False,
    )  # fmt: skip
    if run.returncode:
        sys.exit(run.stderr)
    report = json.loads(run.stdout)
    scores = {name: 100 * category["score"] for name, category in report["categories"].items()}
    return scores | {"largest paint": report["audits"]["largest-contentful-paint"]["numericValue"] / 1000}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pages", description="What a reader waits for.")
    parser.add_argument("--lighthouse", nargs="+", default=[], metavar="PAGE", help="also ask Lighthouse about these")
    pages = parser.parse_args().lighthouse
    print(", ".join(f"{name} {value}" for name, value in machine().items()), "\n")
    with sync_playwright() as playwright, serve(SITE, compressed=True) as address:
        browser = browsers.launch(playwright.chromium)
        print("A drag in the laboratory, 300 frames")
        for name, viewport, slower in (("wide", WIDE, 1), ("phone, processor 4 times slower", PHONE, 4)):
            took = frames(browser, address, viewport, slower)
            late = sum(each > 1.5 * 1000 / 60 for each in took)
            rate = 1000 / statistics.mean(took)
            print(f"  {name:34}{rate:6.1f} frames a second, {late} late, the longest {max(took):.0f} ms")
        browser.close()
        chromium = shutil.which("chromium") or playwright.chromium.executable_path
        for page in pages:
            found = lighthouse(address, page, os.environ.get("CHROMIUM", chromium))
            print(f"  {page:34}" + ", ".join(f"{name} {value:.3g}" for name, value in found.items()))


if __name__ == "__main__":
    main()
