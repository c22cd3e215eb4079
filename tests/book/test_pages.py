"""What makes the pages light: formulas set when the book is built, rules in use alone, code marked sparingly."""

from __future__ import annotations

import re
import sys
from collections import Counter
from types import SimpleNamespace

import pytest
import tinycss2
from docutils import nodes
from fontTools.ttLib import TTFont
from math_core import LatexError
from pygments import highlight
from pygments.lexers import PythonLexer
from sphinx.errors import ExtensionError

from tools import chapters as book
from tools import pdf
from tools.build import SITE

sys.path.insert(0, str(book.BOOK / "_ext"))
import address
import depth_numbers
import light_pages
import mathematics
import page_furniture
import search_order

# ------------------------------------------------------------------------------------------------------- mathematics


@pytest.mark.parametrize(
    ("tex", "wanted"),
    [
        (r"\Bigl(H\Bigr)^{-1}", "<msup><mrow><mo minsize"),  # else the bracket stays small
        (r"\boxed{x = 1}", '<mrow class="boxed"><mrow><mi>x</mi>'),
        (r"z'", '<mrow><mi>z</mi><mo lspace="0">′</mo></mrow>'),
        (r"\ell''_{ij}", '<msub><mrow><mi>ℓ</mi><mo lspace="0" rspace="0">″</mo>'),
        (r"A \otimes B", 'largeop="false">⊗</mo>'),  # in Firefox, else, as large as a sum
        (r"\sqrt\rho", '<msqrt><mrow><mi>ρ</mi><mspace height="0.7em" depth="0.25em"/></mrow></msqrt>'),
        (r"\sqrt[3]{w}", '<mspace height="0.7em" depth="0.25em"/></mrow><mn>3</mn></mroot>'),
        (r"a = b \\ c = d", "<mtable"),  # two lines
        (r"\begin{aligned} a &= b \\ c &= d \end{aligned}", "<mtable"),
        (r"\left. f \right|_{w=0}", '<mo>|</mo></mrow><mrow><mspace width="0.15em"/>'),
    ],
)
def test_what_browsers_draw_otherwise_is_mended(tex, wanted):
    assert wanted in mathematics.mathml(tex, display=True)


def test_a_formula_with_a_slip_is_refused():
    with pytest.raises(LatexError, match="thetta"):
        mathematics.mathml(r"\hat\thetta", display=False)
    assert "ℝ" in mathematics.mathml(r"\R", display=False, macros={"R": r"\mathbb{R}"})


def test_no_line_begins_with_a_comma():
    paragraph = nodes.paragraph(
        "", "", nodes.Text("with "), nodes.math("", "x"), nodes.Text(", and (so) "), nodes.math("", "y")
    )
    document = SimpleNamespace(findall=paragraph.findall)
    mathematics.Together.run(SimpleNamespace(document=document))
    pair = paragraph.children[1]
    assert (pair["classes"], pair.astext()) == (["together"], "x,")
    assert paragraph.astext() == "with x, and (so) y"


def test_the_font_has_every_sign_of_the_pages():
    pages = [path.read_text(encoding="utf-8") for path in SITE.rglob("*.html")]
    wanted = mathematics.signs(pages)
    assert wanted <= mathematics._drawn(TTFont(SITE / "_static" / mathematics.FONT))
    assert {ord("𝜃"), ord("√"), ord("ℐ")} <= wanted  # a letter alone is shown as its italic


def test_a_sign_that_the_font_has_not_is_noticed(tmp_path):
    with pytest.raises(ExtensionError, match="語"):
        mathematics.cut_font(mathematics.signs(["<math><mi>語</mi></math>"]), tmp_path / "font.woff2")


# -------------------------------------------------------------------------------------------------- rules and marks

SHEET = """@import "x.css"; .here, .gone .here { a: b } .gone { a: b } div > p.here:not(.gone)::before { a: b }
@media print { .gone { a: b } #top { a: b } } @media screen { .gone { a: b } } blink { a: b } .by-script { a: b }"""


def test_rules_that_fit_nothing_are_left_out():
    page = '<div id="top"><p class="here x"></p></div>'
    names = light_pages.named_in_page(page) | light_pages.named_in_script("add('by-script')")
    kept = tinycss2.serialize(list(light_pages.fitting(light_pages.rules(SHEET), names)))
    assert " ".join(kept.split()) == (
        ".here{ a: b }div > p.here:not(.gone)::before { a: b }@media print {#top { a: b }}.by-script { a: b }"
    )


def test_code_is_marked_where_it_has_a_colour():
    light_pages.use_sparing(
        None,
        SimpleNamespace(
            html_theme_options={
                "pygments_light_style": "a11y-high-contrast-light",
                "pygments_dark_style": "a11y-high-contrast-dark",
            }
        ),
    )
    marked = highlight("def f(x): return x", PythonLexer(), light_pages.Sparing())
    assert '<span class="nf">f</span>(x):' in marked  # the name of a function, not what it takes


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("✓ eq-x: both sides agree", "check"),
        ("✗ claim: breaks as it should", "break"),
        ("influence refuses, because the gradient is not zero: train on, or set gtol", "sentence"),
        ("point    influence   retraining    difference   of which the step explains", None),
        ("short", None),
    ],
)
def test_printed_lines_are_told_apart(line, kind):
    marked = page_furniture.mark(f"before\n{line}")
    assert marked == f"before\n{line}" if kind is None else marked == f'before\n<span class="book-{kind}">{line}</span>'


def test_a_description_is_a_pages_own_first_sentence():
    section = nodes.section("", nodes.paragraph("", "Short."), nodes.paragraph("", "Word " * 50))
    assert address.description(section) == ("Word " * 31).strip() + " …"
    assert "Influence functions" in address.description(None)


# ------------------------------------------------------------------------------------------------ search and print


def test_a_page_that_says_more_weighs_more():
    about, other = Counter({"hat": 20, "x": 80}), Counter({"hat": 1, "x": 99})
    found = search_order.weights({"about": about, "other": other, "third": Counter({"x": 100})})
    assert found["hat"]["about"] > found["hat"].get("other", 0)
    listed = search_order.weights({"book/ledger": about, "other": other, "third": Counter({"x": 100})})
    assert listed["hat"]["book/ledger"] < found["hat"]["about"]


def test_a_page_in_depth_counts_for_itself():
    bare = {
        "01-a": {"figure": {"x": (1, 1)}},
        "depth-b": {"figure": {"y": (7,), "z": (8,)}, "displaymath": {"e": (3,)}},
    }
    env = SimpleNamespace(
        config=SimpleNamespace(root_doc="intro"),
        toctree_includes={"intro": ["01-a", "depth-a", "depth-b"]},
        toc_fignumbers=dict(bare),
    )
    depth_numbers.number(None, env)
    assert env.toc_fignumbers["01-a"] == bare["01-a"]
    assert env.toc_fignumbers["depth-b"]["figure"] == {"y": ("D2", 1), "z": ("D2", 2)}
    assert env.toc_fignumbers["depth-b"]["displaymath"] == {"e": ("D2", 1)}
    depth_numbers.take_back(None, env)  # else Sphinx would render these pages anew in every build
    assert env.toc_fignumbers["depth-b"] == bare["depth-b"]


def test_the_printed_book_leads_to_its_own_pages():
    whole = pdf.document()
    names = re.findall(r'\bid="([^"]*)"', whole)
    assert {name for name, times in Counter(names).items() if times > 1} == set()
    links = set(re.findall(r'href="#([^"]*)"', whole))
    assert len(links) > 300
    assert links <= set(names)
    assert {name for name, _ in book.table_of_contents()} <= {f"book/{name}" for name in names}
