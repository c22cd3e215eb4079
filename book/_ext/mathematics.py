"""Sphinx extension: mathematics is set when the book is built, as MathML, with a font of the signs that it needs.

A browser shows MathML by itself: there is no script to wait for, nothing moves, and a screen reader reads it.
"""

from __future__ import annotations

import importlib.util
import re
import unicodedata
from collections.abc import Iterable
from html import escape, unescape
from logging import ERROR, getLogger
from pathlib import Path
from typing import Any

import matplotlib
from docutils import nodes
from fontTools import subset
from fontTools.pens.transformPen import TransformPen
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTFont
from math_core import LatexError, LatexToMathML
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number
from sphinx.writers.html5 import HTML5Translator

FONT = "mathematics.woff2"
FORMULA = re.compile(r"<math.*?</math>", re.DOTALL)
ONE, ROW = r"<m[ino][^>]*>[^<]*</m[ino]>", r"<mrow>(?:(?!</?mrow).)*</mrow>"  # one sign, and a row of signs
# What math-core writes, and what browsers draw as TeX does.
MENDED = (
    # An index or exponent on a bracket of a given size: without a group of its own, Chromium draws the bracket small.
    (re.compile(r"(<m(?:sub|sup|subsup)>)(<mo [^>]*minsize=[^>]*>[^<]*</mo>)"), r"\1<mrow>\2</mrow>"),
    # A prime is drawn raised as it is; as an exponent it would be raised twice.
    (re.compile(rf"<msup>({ONE})<mo>([′″‴])</mo></msup>"), r'<mrow>\1<mo lspace="0">\2</mo></mrow>'),
    (
        re.compile(rf"<msubsup>({ONE})({ONE}|{ROW})<mo>([′″‴])</mo></msubsup>"),
        r'<msub><mrow>\1<mo lspace="0" rspace="0">\3</mo><mspace style="margin-left:-0.25em"/></mrow>\2</msub>',
    ),
    # What stands at the foot of a bar ("at s = 0") would touch it.
    (re.compile(r"(\|</mo>(?:</mrow>)?<mrow>)"), r'\1<mspace width="0.15em"/>'),
    # The root of one low letter would hang below its line: it stands on a line of ordinary height and depth.
    (re.compile(rf"<(msqrt|mroot)>({ONE})"), r'<\1><mrow>\2<mspace height="0.7em" depth="0.25em"/></mrow>'),
    # To Firefox this is a sum over many, and large in a display.
    (re.compile(r"<mo([^>]*)>⊗</mo>"), r'<mo\1 largeop="false">⊗</mo>'),
    # Browsers have given this element up; book.css draws the box.
    (re.compile(r'<menclose notation="box">(.*?)</menclose>', re.DOTALL), r'<mrow class="boxed">\1</mrow>'),
)
ITALIC = [
    letter
    for letter in map(chr, (0x210E, *range(0x1D434, 0x1D7CC)))
    if re.match("PLANCK CONSTANT|MATHEMATICAL ITALIC ", unicodedata.name(letter, ""))
]
log = logging.getLogger(__name__)
getLogger("fontTools").setLevel(ERROR)  # that a font has no date is nobody's concern


def mathml(tex: str, *, display: bool, macros: dict[str, str] | None = None) -> str:
    """A formula as MathML; lines that ``\\\\`` ends are set below one another.

    Raises:
        LatexError: if it is no TeX, or has a command that is not known.
    """
    if r"\\" in tex and r"\begin{" not in tex:
        tex = rf"\begin{{aligned}}{tex}\end{{aligned}}"
    made = LatexToMathML(macros=macros or {}, fancy_error=False).convert_with_local_state(tex, displaystyle=display)
    for written, better in MENDED:
        made = written.sub(better, made)
    return made


def _set(translator: HTML5Translator, node: nodes.Element, *, display: bool) -> str:
    tex = node.astext()
    try:
        return mathml(tex, display=display, macros=translator.config.book_macros)
    except LatexError as error:
        log.warning("a formula cannot be set: %s\n%s", error, tex, location=node)
        return f"<code>{escape(tex)}</code>"


def visit_inline(translator: HTML5Translator, node: nodes.math) -> None:
    translator.body.append(translator.starttag(node, "span", "", CLASS="math"))
    translator.body.append(_set(translator, node, display=False) + "</span>")
    raise nodes.SkipNode


def visit_display(translator: HTML5Translator, node: nodes.math_block) -> None:
    translator.body.append(translator.starttag(node, "div", CLASS="math"))
    if node["number"]:  # the name and the words that Sphinx's own displays have
        translator.body.append(f'<span class="eqno">({get_node_equation_number(translator, node)})')
        translator.add_permalink_ref(node, "Link to this equation")
        translator.body.append("</span>")
    # What is too wide scrolls in a box of its own, beside which the number stays.
    translator.body.append(f'<div class="formula">{_set(translator, node, display=True)}</div></div>\n')
    raise nodes.SkipNode


class Together(SphinxPostTransform):
    """A formula and the mark that follows it stand on one line: no line begins with a comma."""

    default_priority = 900
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        for formula in list(self.document.findall(nodes.math)):
            after = formula.next_node(descend=False, siblings=True)
            mark = re.match(r"[^\s\w(\[“‘—–]+", after) if isinstance(after, nodes.Text) else None
            if mark:
                after.parent.replace(after, nodes.Text(after[mark.end() :]))
                pair = nodes.inline("", "", classes=["together"])
                formula.replace_self(pair)
                pair += [formula, nodes.Text(mark[0])]


# ---------------------------------------------------------------------------------------------------------- the font


def signs(pages: Iterable[str]) -> set[int]:
    """The signs of all formulas of these pages, and what a browser shows for a letter that stands alone: its italic."""
    formulas = (formula for page in pages for formula in FORMULA.findall(page))
    plain = set(unescape("".join(re.sub(r"<[^>]*>", "", formula) for formula in formulas)))
    italic = (letter for letter in ITALIC if unicodedata.normalize("NFKC", letter) in plain)
    return {ord(sign) for sign in {*plain, *italic, "√"} if sign.isprintable()}  # a root is an element, not a sign


def cut_font(wanted: set[int], target: Path) -> None:
    """Store STIX Two Math with these signs and no others, unless what is stored has them.

    Raises:
        ExtensionError: if it has not got one of them.
    """
    if target.is_file() and wanted <= _drawn(TTFont(target)):
        return
    source = Path(importlib.util.find_spec("ziamath").origin).parent / "fonts" / "STIXTwoMath-Regular.ttf"
    # With the smaller forms for indices (ssty) and the letters without a dot below a hat (dtls).
    options = subset.Options(flavor="woff2", layout_features=["ssty", "dtls"], hinting=False)
    font = subset.load_font(str(source), options)
    _calligraphic(font)
    missing = wanted - _drawn(font)
    if missing:
        raise ExtensionError(f"the font of the formulas has no {', '.join(map(chr, sorted(missing)))}")
    cutter = subset.Subsetter(options)
    cutter.populate(unicodes=wanted)
    cutter.subset(font)
    subset.save_font(font, str(target), options)


def _drawn(font: TTFont) -> set[int]:
    """The signs of a font, with those that choose between two forms of another sign."""
    choosing = [selector for table in font["cmap"].tables if table.format == 14 for selector in table.uvsDict]
    return {*font.getBestCmap(), *choosing}


def _calligraphic(font: TTFont) -> None:
    """Give the font TeX's own calligraphic capitals: its I, the sign of influence, would be read as a J."""
    tex = TTFont(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "cmsy10.ttf")
    scale = font["head"].unitsPerEm / tex["head"].unitsPerEm
    for code, name in font.getBestCmap().items():
        letter = unicodedata.normalize("NFKC", chr(code))
        if "A" <= letter <= "Z" and re.match("(MATHEMATICAL )?SCRIPT CAPITAL", unicodedata.name(chr(code))):
            pen = TTGlyphPen(None)
            tex.getGlyphSet()[letter].draw(TransformPen(pen, (scale, 0, 0, scale, 0, 0)))
            font["glyf"][name] = pen.glyph()
            font["glyf"][name].recalcBounds(font["glyf"])
            font["hmtx"][name] = tuple(round(scale * length) for length in tex["hmtx"][letter])


def store_font(app: Sphinx, error: Exception | None) -> None:
    if not error and app.builder.format == "html":
        folder = Path(app.outdir)
        pages = (path.read_text(encoding="utf-8") for path in folder.rglob("*.html"))
        cut_font(signs(pages), folder / "_static" / FONT)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_config_value("book_macros", {}, "env")
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_display, None))
    app.add_post_transform(Together)
    app.connect("build-finished", store_font)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
