"""The longest page is there soon, on a phone far from a mast."""

from __future__ import annotations

from tests.pages.page_visits import PAGES, PHONE, serve
from tools.build import SITE

# Lighthouse's phone: 1.6 Mbit/s down, 750 kbit/s up, 150 ms there and back.
MAST = {"offline": False, "latency": 150, "downloadThroughput": 1.6e6 / 8, "uploadThroughput": 750e3 / 8}
GOOD = 2.5  # seconds until the largest thing in sight is painted
LARGEST_PAINT = """() => new Promise((done) => {
  new PerformanceObserver((list) => done(list.getEntries().at(-1).startTime / 1000))
    .observe({type: "largest-contentful-paint", buffered: true});
})"""


def seconds(browser, url):
    page = browser.new_page(viewport=PHONE)
    page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", MAST)
    page.goto(url)
    taken = page.evaluate(LARGEST_PAINT)
    page.close()
    return taken


def test_the_longest_page_is_there_soon(browser):
    longest = max(PAGES, key=lambda name: (SITE / f"{name}.html").stat().st_size)
    with serve(SITE, compressed=True) as address:
        # Whatever else this machine is at can only make it slower.
        assert any(seconds(browser, f"{address}{longest}.html") < GOOD for _ in range(3))


def test_a_page_that_waits_is_noticed(browser, tmp_path):
    (tmp_path / "font.woff2").write_bytes(bytes(700_000))  # not to be compressed any more
    (tmp_path / "index.html").write_text('<script src="font.woff2"></script><p>here', encoding="utf-8")
    with serve(tmp_path, compressed=True) as address:
        assert seconds(browser, f"{address}index.html") > GOOD
