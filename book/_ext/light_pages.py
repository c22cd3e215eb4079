"""Sphinx extension: a page loads one style sheet and one script, and shows itself before the script runs.

The theme and its extensions bring a dozen of each, most of which the book never uses. Their rules are gathered into
`_static/site.css`, without those that fit nothing on any page, and their scripts into `_static/site.js`, for which no
page waits (book/_templates/layout.html). A class that a page or a script of the book names is kept: there is no list.
"""

from __future__ import annotations

import base64
import io
import re
import shutil
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import tinycss2
from fontTools import subset
from PIL import Image
from pygments.formatters import HtmlFormatter
from pygments.styles import get_style_by_name
from pygments.token import STANDARD_TYPES, Text
from sphinx.application import Sphinx
from sphinx.highlighting import PygmentsBridge
from tinycss2.ast import AtRule, Node, QualifiedRule

# What the theme's templates name; the rest is in Sphinx's lists.
FIRST_SHEETS = ("basic.css", "styles/pydata-sphinx-theme.css")
LAST_SCRIPTS = ("scripts/bootstrap.js", "scripts/pydata-sphinx-theme.js")
# Thebe runs code on the page, and sphinx-design remembers which tab was open: the book has neither.
WITHOUT = ("thebe", "design-tabs")
# Icons as a script, 1.5 MB beside the font of the same icons; that font, of which the style sheet has a cut; and what
# only the theme's developers read.
UNUSED = ("scripts/fontawesome.js*", "vendor", "locales", "**/*.map", "*webpack-macros.html", "sphinx-thebe.*")
ICON_FONTS = {"fas": "fa-solid-900", "fa-solid": "fa-solid-900", "fab": "fa-brands-400", "fa-brands": "fa-brands-400"}
ICON = re.compile("[\uf000-\uf8ff]")  # where the font has its icons


class Bundle:
    """The style sheet and the script of all pages."""

    def __init__(self) -> None:
        self.sheets: list[str] = []
        self.scripts: list[str] = []  # names of files, and scripts themselves

    def gather(self, app: Sphinx) -> None:
        """Note what Sphinx would put on every page: while it writes, pages add to its lists."""
        if app.builder.format == "html":
            self.sheets = [*FIRST_SHEETS, *(name for name, _ in _wanted(app.builder._css_files))]
            wanted = list(_wanted(app.builder._js_files))
            # Scripts without a file set what those with one read at once.
            settings, files = [body for _, body in wanted if body], [name for name, body in wanted if not body]
            self.scripts = [*settings, *files, *LAST_SCRIPTS]

    def write(self, app: Sphinx, error: Exception | None) -> None:
        if error or app.builder.format != "html":
            return
        for path in (Path(app.outdir) / "book").glob("*.html"):
            if f"book/{path.stem}" not in app.env.found_docs:  # of a page that was renamed or is gone
                path.unlink()
        static = Path(app.outdir) / "_static"
        if not (static / "vendor").exists():  # no page was out of date, so Sphinx copied nothing
            colours = (static / "pygments.css").read_text("utf-8")  # the theme's; Sphinx's has none for the dark
            app.builder.prepare_writing(set())
            app.builder.copy_static_files()  # type: ignore[attr-defined]
            (static / "pygments.css").write_text(colours, encoding="utf-8")
        scripts = [(static / name).read_text("utf-8") if name.endswith(".js") else name for name in self.scripts]
        scripts = [re.sub("//# sourceMappingURL=.*", "", script) for script in scripts]
        (static / "site.js").write_text("\n;\n".join(scripts), encoding="utf-8")
        pages = [named_in(path, path.stat().st_mtime_ns) for path in Path(app.outdir).rglob("*.html")]
        modules = [path.read_text("utf-8") for path in static.glob("*/*.js") if path.parent.name != "scripts"]
        names = frozenset().union(*pages, *map(named_in_script, [*scripts, *modules]))
        sheets = tuple((static / name).read_text("utf-8") for name in self.sheets)
        (static / "site.css").write_text(style(sheets, names, static), encoding="utf-8")
        for pattern in UNUSED:
            for path in list(static.glob(pattern)):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _wanted(files: Iterable[Any]) -> Iterator[tuple[str, str | None]]:
    """Style sheets or scripts in the order of a page: the name in `_static`, and the body of one without a file."""
    for file in sorted(files, key=lambda file: file.priority):
        if not any(name in str(file.filename).lower() for name in WITHOUT):
            yield str(file.filename).removeprefix("_static/"), file.attributes.get("body")


# --------------------------------------------------------------------------------------------------- the style sheet


# A preview asks for the same again at every edit: what is made here is kept.
@lru_cache(maxsize=256)
def named_in(path: Path, changed: int) -> frozenset[str]:
    return frozenset(named_in_page(path.read_text(encoding="utf-8")))


def named_in_page(page: str) -> set[str]:
    """The classes, identifiers and elements of a page."""
    values = re.findall(r"""\b(?:class|id)=(?:"([^"]*)"|'([^']*)')""", page)
    return {*re.findall(r"<([a-z]\w*)", page), *" ".join(map("".join, values)).split()}


def named_in_script(script: str) -> set[str]:
    """Every word that a script could give to an element."""
    return set(re.findall(r"[A-Za-z][\w-]*", script))


@lru_cache(maxsize=64)
def rules(sheet: str) -> tuple[Node, ...]:
    return tuple(tinycss2.parse_stylesheet(sheet, skip_comments=True, skip_whitespace=True))


def fitting(found: Iterable[Node], names: set[str]) -> Iterator[Node]:
    """The rules that can fit something with these names, each with the selectors that can."""
    for rule in found:
        if isinstance(rule, QualifiedRule):
            fit = [selector for selector in _selectors(rule.prelude) if _names(selector) <= names]
            if fit:
                comma = tinycss2.parse_component_value_list(",")
                prelude = [token for selector in fit for token in [*comma, *selector]][1:]
                yield QualifiedRule(0, 0, prelude, rule.content)
        elif isinstance(rule, AtRule) and rule.at_keyword in ("media", "supports"):
            inner = tinycss2.parse_rule_list(rule.content, skip_comments=True, skip_whitespace=True)
            content = list(fitting(inner, names))
            if content:
                yield AtRule(0, 0, rule.at_keyword, rule.lower_at_keyword, rule.prelude, content)
        elif isinstance(rule, AtRule) and rule.content is not None:  # not @charset, not @import
            yield rule


def _selectors(prelude: list[Node]) -> list[list[Node]]:
    selectors: list[list[Node]] = [[]]
    for token in prelude:
        selectors.append([]) if token == "," else selectors[-1].append(token)
    return selectors


def _names(selector: list[Node]) -> set[str]:
    """What must be there for the selector to fit: not what stands in brackets, nor a state."""
    names, before = set(), None
    for token in selector:
        if token.type == "hash" or (token.type == "ident" and before != ":"):
            names.add(token.value)
        before = token
    return names


@lru_cache(maxsize=1)
def style(sheets: tuple[str, ...], names: frozenset[str], static: Path) -> str:
    """One style sheet of those rules of all that can fit something with these names.

    The icons are in it, the motions are those in use, and the colours are light where no script chose any.
    """
    css = "\n".join(tinycss2.serialize(list(fitting(rules(sheet), names))) for sheet in sheets)

    def in_use(match: re.Match[str]) -> str:
        return match[0] if len(re.findall(rf"\b{re.escape(match[1])}\b", css)) > 1 else ""

    css = re.sub(r"@(?:-webkit-)?keyframes ([\w-]+) ?\{(?:[^{}]*\{[^{}]*\})*[^{}]*\}", in_use, css)
    icons = frozenset(map(ord, ICON.findall(css)))
    fonts = {font for name, font in ICON_FONTS.items() if name in names}

    def cut(match: re.Match[str]) -> str:
        font = next((font for font in fonts if font in match[0]), None)
        if not font:
            return ""
        whole = static / "vendor" / "fontawesome" / "webfonts" / f"{font}.woff2"
        return re.sub(r"src:[^;}]*", f"src:url({_data(whole, icons)})", match[0])

    css = re.sub(r"@font-face ?\{[^}]*fontawesome[^}]*\}", cut, css)
    return '@charset "utf-8";' + re.sub(r"\[data-theme=\"?light\"?\]", ":not([data-theme=dark])", css)


@lru_cache
def _data(path: Path, icons: frozenset[int]) -> str:
    """A font with these icons alone, as an address that needs no request."""
    options = subset.Options(flavor="woff2", layout_features=[], hinting=False)
    font = subset.load_font(str(path), options)
    cutter = subset.Subsetter(options)
    cutter.populate(unicodes=icons)
    cutter.subset(font)
    stored = io.BytesIO()
    subset.save_font(font, stored, options)
    return "data:font/woff2;base64," + base64.b64encode(stored.getvalue()).decode()


# ---------------------------------------------------------------------------------------------------------- pictures


def lighten(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Give every picture its size, so that nothing moves when it comes, and load it when it is near; PNG becomes WebP.

    Lossless, at a third of the bytes. The style sheet is told how wide it was drawn: see "Phones" there.
    """
    images = {name: source for source, name in app.builder.images.items()}

    def lighter(found: re.Match[str]) -> str:
        source = Path(app.srcdir, images.get(Path(found["name"]).name, ""))
        if not source.is_file():
            return found[0]
        name = found["name"]
        if source.suffix == ".svg":
            box = re.search(r'viewBox="\S+ \S+ (\S+) (\S+)"', source.read_text("utf-8"))
            width, height = box.groups() if box else ("auto", "auto")
        else:
            with Image.open(source) as picture:
                width, height = picture.size
                if source.suffix == ".png":
                    name = name.removesuffix("png") + "webp"
                    target = Path(app.outdir, app.builder.imagedir, Path(name).name)
                    if not target.is_file() or target.stat().st_mtime < source.stat().st_mtime:
                        target.parent.mkdir(parents=True, exist_ok=True)
                        picture.save(target, lossless=True, method=2, quality=50)
                    app.builder.images.pop(images[source.name], None)  # not copied as it is
        style = f'style="--drawn: {width}px"' if str(width).isdigit() else ""
        return f'{found["before"]}{name}" width="{width}" height="{height}" {style} loading="lazy" decoding="async"'

    context["body"] = re.sub(r'(?P<before><img [^>]*src=")(?P<name>[^"]+)"', lighter, context.get("body", ""))


# -------------------------------------------------------------------------------------------------- highlighted code


class Sparing(HtmlFormatter):
    """Marks only what has a colour of its own: the rest, two thirds of all pieces of code, is text."""

    plain: frozenset[Any] = frozenset()

    def _get_css_classes(self, kind: Any) -> str:
        return "" if kind in self.plain else super()._get_css_classes(kind)


def use_sparing(app: Sphinx, config: Any) -> None:
    options = config.html_theme_options
    styles = [get_style_by_name(options[f"pygments_{mode}_style"]) for mode in ("light", "dark")]
    Sparing.plain = frozenset(
        kind
        for kind in STANDARD_TYPES
        if all(style.style_for_token(kind) == style.style_for_token(Text) for style in styles)
    )
    PygmentsBridge.html_formatter = Sparing


def setup(app: Sphinx) -> dict[str, Any]:
    bundle = Bundle()
    app.connect("config-inited", use_sparing)
    app.connect("builder-inited", bundle.gather, priority=900)
    app.connect("html-page-context", lighten)
    app.connect("build-finished", bundle.write, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
