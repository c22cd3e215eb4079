"""Preview the book on this computer: a saved edit runs what is stale, renders its page, and the open page reloads.

python -m tools.serve [PORT]
"""

from __future__ import annotations

import contextlib
import gc
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from livereload import Server
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.environment.collectors.toctree import TocTreeCollector
from sphinx.util.build_phase import BuildPhase

from tools import build, command, execute
from tools import chapters as book
from tools.command import Failed

WATCHED = ("book", "helpers", "benchmarks/runs", "tests/mistakes.toml", "_config.yml", "_toc.yml", "requirements")
# What only a new process takes up.
OF_THE_PROGRAM = ("_config.yml", "_toc.yml", "_ext")


class Preview:
    """One Sphinx for all builds: a page is rendered again in a second or two, where a new start would take ten."""

    def __init__(self, app: Sphinx) -> None:
        self._app = app
        self._whole = False  # whether the site has been built as a whole
        self._seen: dict[Path, tuple[int, int]] = {}
        self._doctrees: dict[str, nodes.document] = {}
        self._first = [(part, part.copy()) for part in _carried_over(app)]
        app.connect("env-purge-doc", self._forget)

    def _forget(self, app: Sphinx, env: BuildEnvironment, docname: str) -> None:
        """A page is about to be read again. Sphinx, made for one build a process, would go on with what it was."""
        self._doctrees.pop(docname, None)
        env._pickled_doctree_cache.pop(docname, None)

    @contextlib.contextmanager
    def _doctrees_at_hand(self) -> Iterator[None]:
        """Figures are numbered through the whole book: do not unpickle all of it for each edit."""
        load = BuildEnvironment.get_doctree

        def get_doctree(env: BuildEnvironment, docname: str) -> nodes.document:
            if self._app.phase != BuildPhase.READING:  # the writer changes what it gets
                return load(env, docname)
            if docname not in self._doctrees:
                self._doctrees[docname] = load(env, docname)
            return self._doctrees[docname]

        BuildEnvironment.get_doctree = get_doctree
        try:
            yield
        finally:
            BuildEnvironment.get_doctree = load

    def update(self) -> None:
        """Run and render what the edits ask for. A mistake of the author's is said, and the preview goes on."""
        before, self._seen = self._seen, _state()
        edited = [path for path in before.keys() | self._seen.keys() if before.get(path) != self._seen.get(path)]
        if edited:
            command.run(lambda: self._update(edited))

    def _update(self, edited: list[Path]) -> int:
        start = time.perf_counter()
        if self._whole and any(part in OF_THE_PROGRAM for path in edited for part in path.parts):
            raise Failed("The book's configuration changed: end the preview (Ctrl-C) and start it again.")
        pages = [path for path in edited if path.parent == book.BOOK and path.suffix == ".md" and path.exists()]
        few = self._whole and len(pages) == len(edited)
        chapters = [page.stem for page in pages if page in book.chapters()] if few else []
        if (chapters or not few) and execute.main(chapters):
            return 1
        for part, first in self._first:
            part.clear()
            (part.update if isinstance(part, dict) else part.extend)(first)
        with command.alone(), self._doctrees_at_hand():
            good = build.render(self._app, pages if few else None)
        if not few:  # what a whole build leaves stays: let the collector not go through it at each edit
            gc.unfreeze()
            gc.collect()
            gc.freeze()
        self._whole = self._whole or good
        print(f"{', '.join(page.stem for page in pages) if few else 'The book'}: {time.perf_counter() - start:.1f} s")
        return 0


def _carried_over(app: Sphinx) -> list[dict | list]:
    """What extensions change while they build and do not set back, as they count on one build a process.

    Chapters would be numbered on from the last build's, and pages would carry the scripts of the pages before.
    """
    handlers = [getattr(listener.handler, "__self__", None) for listener in app.events.listeners["env-get-updated"]]
    collectors = [vars(handler) for handler in handlers if isinstance(handler, TocTreeCollector)]
    return [app.registry.js_files, app.registry.css_files, app.builder._js_files, app.builder._css_files, *collectors]


def _state() -> dict[Path, tuple[int, int]]:
    """Every watched file, when it last changed, and its size."""
    files: list[Path] = []
    for name in WATCHED:
        path = book.ROOT / name
        files += [path] if path.is_file() else path.rglob("*")
    return {
        path: (path.stat().st_mtime_ns, path.stat().st_size)
        for path in files
        if path.is_file() and "__pycache__" not in path.parts
    }


def main() -> int:
    port = int(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1].isdigit() else 8000
    if sys.argv[1:] not in ([], [str(port)]):
        raise Failed("usage: python -m tools.serve [PORT]")
    with socket.socket() as probe:  # before minutes of work are done for nothing
        probe.bind(("127.0.0.1", port))
    with build.book() as app:
        preview = Preview(app)
        preview.update()
        print(f"http://localhost:{port}/book/intro.html  (Ctrl-C ends it)", flush=True)
        server = Server()
        for name in WATCHED:
            server.watch(str(book.ROOT / name), preview.update)
        server.serve(port=port, root=str(build.SITE))
    return 0


if __name__ == "__main__":
    sys.exit(command.run(main))
