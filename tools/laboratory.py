"""The laboratory of the book: its modules as one script, and the numbers that it takes from `helpers`.

    python -m tools.laboratory            write book/_static/lab/ring.js anew, from helpers
    python -m tools.laboratory figures    draw the static figures anew, in a browser, by the laboratory itself

Browsers load no ES module and start no worker from a file on the disk. So the pages load one ordinary script, which
holds every module as a function, and the worker is made of that script's own text.
"""

from __future__ import annotations

import re
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from tools import command
from tools.command import ROOT

LAB = ROOT / "book" / "_static" / "lab"
FORMS = LAB / "forms.toml"
FIRST = "main.js"
# The modules use these forms of import and export alone; a test holds them to that.
IMPORT = re.compile(r'^import \{([^}]*)\} from "\./([\w-]+\.js)";\n', re.M)
REMARK = re.compile(r"^ *(?://[^\n]*|/\*\*(?:(?!\*/).)*\*/)\n", re.M | re.S)
EXPORT = re.compile(r"^export (?:async )?(?:function\*?|const|class) (\w+)", re.M)


def script(folder: Path = LAB) -> str:
    """The laboratory as one classic script."""
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
    modules = "\n".join(f'modules["{name}"] = {_function(texts[name])}' for name in order)
    return (
        "(function laboratory() {\n"
        '"use strict";\n'
        "const modules = {};\n"
        f"{modules}\n"
        f"const css = `{css}`;\n"
        f'modules["{FIRST}"].start({{ source: () => `(${{laboratory}})()`, css, modules }});\n'
        "})();\n"
    )


def _function(text: str) -> str:
    """A module as a function that is called at once and returns what it exports."""
    names = EXPORT.findall(text)
    text = IMPORT.sub(lambda m: f'const {{{m[1].replace(" as ", ": ")}}} = modules["{m[2]}"];\n', text)
    text = re.sub(r"^export ", "", REMARK.sub("", text), flags=re.M)
    return f"(() => {{\n{text}return {{ {', '.join(names)} }};\n}})();"


@cache
def forms() -> dict[str, dict[str, Any]]:
    """The small forms of the laboratory, by name."""
    return tomllib.loads(FORMS.read_text(encoding="utf-8"))


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
        "// Written by tools/laboratory.py from `helpers.ring`: x₁, x₂ (single precision) and the label of each example.\n"
        "\n"
        f"export const TRAIN = [\n{rows(train)}];\n"
        "\n"
        f"export const TEST = [\n{rows(test)}];\n"
    )


def main() -> int:
    (LAB / "ring.js").write_text(ring(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(command.run(main))
