"""The laboratory of the book: its modules as one script, and the numbers that it takes from `helpers`.

    python -m tools.laboratory            write book/_static/lab/ring.js anew, from helpers
    python -m tools.laboratory figures    draw the static figures anew, in a browser, by the laboratory itself

Browsers load no ES module and start no worker from a file on the disk. So the pages load one ordinary script, which
holds every module as a function, and the worker is made of that script's own text.
"""

from __future__ import annotations

import hashlib
import re
import sys
import tomllib
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from tools import command
from tools.command import ROOT

LAB = ROOT / "book" / "_static" / "lab"
FORMS = LAB / "forms.toml"
FIRST = "main.js"
SCRIPT = "_static/laboratory.js"  # in the site
SETTINGS = ("views", "controls", "more", "state", "goal")
# Loads the script when the form comes into view; the script finds all forms of the page. The whole, which is in view
# from the start, keeps a screen's height free, so that the text below it does not move.
LOADER = """<script>(() => { const place = document.currentScript.previousElementSibling, src = "%s";
if ("whole" in place.dataset) place.style.minHeight = "100vh";
new IntersectionObserver((seen, eye) => { if (!seen.some((one) => one.isIntersecting)) return; eye.disconnect();
if (!document.querySelector(`script[src="${src}"]`)) document.head.append(Object.assign(
document.createElement("script"), { src })); }, { rootMargin: "400px" }).observe(place); })();</script>"""
# The modules use these forms of import and export alone.
IMPORT = re.compile(r'^import \{([^}]*)\} from "\./([\w-]+\.js)";\n', re.M)
REMARK = re.compile(r"^ *(?://[^\n]*|/\*\*(?:(?!\*/).)*\*/)\n", re.M | re.S)
EXPORT = re.compile(r"^export (?:async )?(?:function\*?|const|class) (\w+)", re.M)


def script(folder: Path = LAB) -> str:
    """The laboratory as one classic script.

    Raises:
        ValueError: for a module that imports or exports in another way than `_function` knows.
    """
    order: list[str] = []
    texts: dict[str, str] = {}

    def visit(name: str) -> None:
        if name in texts:
            return
        texts[name] = (folder / name).read_text(encoding="utf-8")
        for _, other in IMPORT.findall(texts[name]):
            visit(other)
        order.append(name)

    visit(FIRST)
    css = (folder / "lab.css").read_text(encoding="utf-8")
    assert "`" not in css and "\\" not in css
    modules = "\n".join(f'modules["{name}"] = {_function(name, texts[name])}' for name in order)
    return (
        "(function laboratory() {\n"
        '"use strict";\n'
        "const modules = {};\n"
        f"{modules}\n"
        f"const css = `{css}`;\n"
        f'modules["{FIRST}"].start({{ source: () => `(${{laboratory}})()`, css, modules }});\n'
        "})();\n"
    )


def _function(name: str, text: str) -> str:
    """A module as a function that is called at once and returns what it exports."""
    exported = EXPORT.findall(text)
    text = IMPORT.sub(lambda m: f'const {{{m[1].replace(" as ", ": ")}}} = modules["{m[2]}"];\n', REMARK.sub("", text))
    text = EXPORT.sub(lambda m: m[0].removeprefix("export "), text)
    if left := re.search(r"^(import|export)\b.*", text, re.M):
        raise ValueError(f"{name}: this form of import or export is not known to tools/laboratory.py: {left[0]}")
    return f"(() => {{\n{text}return {{ {', '.join(exported)} }};\n}})();"


@cache
def forms() -> dict[str, dict[str, Any]]:
    """The small forms of the laboratory, by name."""
    return tomllib.loads(FORMS.read_text(encoding="utf-8"))


def still(name: str) -> Path:
    """The picture that stands where nothing moves."""
    return LAB / f"still-{name}.svg"


def html(name: str, up: str) -> str:
    """The place of a form: what is asked, a picture, and what the script needs to know.

    ``up`` leads from the page to the root of the site.
    """
    form = forms()[name]
    data = {key: form.get(key, "") for key in SETTINGS}
    data["home"] = f"{up}book/lab.html"
    if name == "whole":
        data["whole"] = ""
    attributes = "".join(f' data-{key}="{escape(value)}"' for key, value in data.items())
    version = hashlib.sha256(script().encode()).hexdigest()[:8]
    return (
        f'<div class="laboratory" id="laboratory-{name}"{attributes}>\n'
        f'<p class="task">{escape(form["task"])}</p>\n'
        f'<figure class="still"><img src="{up}_static/lab/{still(name).name}" alt="{escape(form["alt"])}" '
        'loading="lazy" width="800" height="400"></figure>\n'
        "</div>\n" + LOADER % f"{up}{SCRIPT}?{version}"
    )


# The first two views of a form, side by side in one picture that needs no style sheet.
DRAW = """(place) => {
  const copied = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "opacity", "font-size"];
  const plain = { "fill-opacity": "1", stroke: "none", "stroke-dasharray": "none", opacity: "1" };
  const views = [...place.querySelectorAll(".view")].slice(0, 2);
  let tallest = 0;
  const parts = views.map((view, place) => {
    const svg = view.querySelector("svg");
    const copy = svg.cloneNode(true);
    const [theirs, ours] = [svg, copy].map((one) => [...one.querySelectorAll("*")]);
    theirs.forEach((one, k) => {
      const style = getComputedStyle(one);
      for (const name of one.getAttributeNames())
        if (/^(class|style|role|tabindex|data-|aria-)/.test(name)) ours[k].removeAttribute(name);
      if (one.tagName === "g" || one.tagName === "clipPath") return;
      for (const name of copied) {
        const value = style.getPropertyValue(name);
        if (value === plain[name] || (name === "font-size" && !one.closest("text"))) continue;
        if (one.closest("text") && name.startsWith("stroke")) continue;
        ours[k].setAttribute(name, value);
      }
      if (one.matches(".grip, path:not([d]), path[d='']")) ours[k].remove();
    });
    const { width, height } = svg.viewBox.baseVal;
    const scale = 390 / width;
    tallest = Math.max(tallest, height * scale);
    const title = view.querySelector(".title").textContent;
    return `<g transform="translate(${410 * place} 0)">` +
      `<text x="4" y="16" font-size="15" font-weight="600">${title}</text>` +
      `<g transform="translate(0 26) scale(${scale})">${copy.innerHTML}</g></g>`;
  });
  const all = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 ${Math.ceil(tallest + 32)}" ` +
    `font-family="system-ui, 'DejaVu Sans', sans-serif" fill="#23272b">${parts.join("")}</svg>`;
  return new XMLSerializer().serializeToString(new DOMParser().parseFromString(all, "image/svg+xml")) + "\\n";
}"""
PAGE = """<!doctype html><html lang="en" data-theme="light"><meta charset="utf-8"><title>Stills</title>
<body>{}</body></html>"""


def place(name: str) -> str:
    """A form as bare HTML."""
    data = " ".join(f'data-{key}="{escape(forms()[name].get(key, ""))}"' for key in SETTINGS)
    return f'<div class="laboratory" {data}></div>'


def drawn(page: Any, name: str) -> str:
    """The picture of a form, drawn by the laboratory in a browser's page."""
    page.set_content(PAGE.format(place(name)))
    page.add_script_tag(content=script())
    page.wait_for_function("document.querySelector('.laboratory').app?.settled")
    return str(page.locator(".laboratory").evaluate(DRAW))


def draw_all() -> None:
    """Write the pictures of all forms."""
    from playwright.sync_api import sync_playwright

    from tools import browser as browsers

    with sync_playwright() as playwright:
        browser = browsers.launch(playwright.chromium)
        page = browser.new_page(viewport={"width": 1000, "height": 1400})
        for name in forms():
            still(name).write_text(drawn(page, name), encoding="utf-8")
        browser.close()


def ring() -> str:
    """The text of ``ring.js``: the data of the book's problem. Its inputs are numbers of single precision."""
    import numpy as np

    from helpers import ring as the_ring

    def rows(data: Any) -> str:
        pairs = zip(data.X.tolist(), data.y.tolist(), strict=True)
        digits = (", ".join(str(np.float32(x)) for x in X) + f", {y:.0f}" for X, y in pairs)
        return "".join(f"  [{row}],\n" for row in digits)

    train, test = the_ring()
    return (
        "// Written by tools/laboratory.py from `helpers.ring`: x₁, x₂ (single precision) and label of each example.\n"
        "\n"
        f"export const TRAIN = [\n{rows(train)}];\n"
        "\n"
        f"export const TEST = [\n{rows(test)}];\n"
    )


def main() -> int:
    if sys.argv[1:] == ["figures"]:
        draw_all()
        return 0
    (LAB / "ring.js").write_text(ring(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(command.run(main))
