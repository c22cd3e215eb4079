"""Sphinx extension: the search puts first the page that says most of what is looked for.

Sphinx's index knows whether a word stands on a page. `_static/search-weights.js` adds how much a page has to say of it,
and of two words in a row (BM25); one in a title, or in the page's name, counts like many in the text. What ranks by it
is book/_static/search.js.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from functools import cache, lru_cache
from html import unescape
from itertools import pairwise
from math import log
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.search.en import SearchEnglish

WORD = re.compile(r"[^\W\d_]{2,}")
HEADING = re.compile(r"<h([1-3])[^>]*>(.*?)</h\1>", re.DOTALL)
IN_HEADING = {"1": 20, "2": 6, "3": 3}  # for how many words in the text a word there counts
# Lists name everything and explain nothing.
LISTS = {"conventions", "ledger", "helpers-reference", "notation", "references", "changelog"}
LATER = 0.4  # a list, or a page in depth, which its chapter leads to
SATURATION, LENGTH = (
    12,
    0.5,
)  # BM25's k and b: how often a word stands there matters long, as all pages are about one thing
RARITY = 0.3  # at least: the words of the book's own title are on every page
LEAST = 0.15  # of the most that a page has to say of a word: what is less decides nothing


@lru_cache(maxsize=256)  # a preview asks again at every edit
def counts(page: Path, changed: int) -> Counter[str]:
    """How often a page has each word, by its stem, and each two that stand together more than once."""
    text = page.read_text(encoding="utf-8").partition('<article class="bd-article">')[2].partition("</article>")[0]
    words = _words(text)
    found = Counter(words)
    found += Counter({pair: times for pair, times in Counter(_pairs(words)).items() if times > 2})
    titles = [(IN_HEADING[level], _words(heading)) for level, heading in HEADING.findall(text)]
    for counted, title in [*titles, (IN_HEADING["1"], _words(page.stem.replace("-", " ")))]:
        for term in [*title, *_pairs(title)]:
            found[term] += counted
    return found


def _pairs(words: list[str]) -> list[str]:
    return [" ".join(pair) for pair in pairwise(words)]


def _words(source: str) -> list[str]:
    hidden = r'<(pre|math)\b.*?</\1>|<div class="book-lines">.*?</div>|<[^>]*>'
    text = unescape(re.sub(hidden, " ", source, flags=re.DOTALL))
    return [_stem(word) for word in WORD.findall(text.lower())]


_english = SearchEnglish({})


@cache
def _stem(word: str) -> str:
    return _english.stem(word)


def weights(pages: dict[str, Counter[str]]) -> dict[str, dict[str, float]]:
    """For each stem, the pages that say something of it, and how much (Okapi's BM25)."""
    length = {name: sum(found.values()) for name, found in pages.items()}
    average = sum(length.values()) / len(pages)
    on = Counter(stem for found in pages.values() for stem in found)
    result: dict[str, dict[str, float]] = {}
    for name, found in pages.items():
        for stem, times in found.items():
            rarity = max(RARITY, log(1 + (len(pages) - on[stem] + 0.5) / (on[stem] + 0.5)))
            room = SATURATION * (1 - LENGTH + LENGTH * length[name] / average)
            weight = rarity * times * (SATURATION + 1) / (times + room) * (LATER if _comes_later(name) else 1)
            result.setdefault(stem, {})[name] = round(weight, 1)
    return {
        stem: {name: weight for name, weight in said.items() if weight >= LEAST * max(said.values())}
        for stem, said in result.items()
    }


def _comes_later(name: str) -> bool:
    page = Path(name).name
    return page in LISTS or page.startswith("depth-")


def store(app: Sphinx, error: Exception | None) -> None:
    if error or app.builder.format != "html":
        return
    folder = Path(app.outdir)
    paths = {name: folder / f"{name}.html" for name in sorted(app.env.found_docs)}
    found = weights({name: counts(path, path.stat().st_mtime_ns) for name, path in paths.items()})
    script = f"const WEIGHTS = {json.dumps(found, ensure_ascii=False, separators=(',', ':'))};\n"
    (folder / "_static" / "search-weights.js").write_text(script, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("build-finished", store)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
