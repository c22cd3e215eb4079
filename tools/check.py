"""Check everything, or what a change can have broken. Pytest's summary comes last.

    python -m tools.check                  everything: style, types, the build, and every test; of the planted mistakes
                                           those that rest on what has changed since they were seen
    python -m tools.check --all            every planted mistake, too
    python -m tools.check --changed        what the files that differ from main can have broken
    python -m tools.check --changed 03 19  the same for these pages, whether they differ or not

Every step runs even if one before it failed, so that one run shows all that is wrong. What comes after `--` is
pytest's.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable

from tools import affected, command, execute
from tools import chapters as book

WORKERS = str(min((os.cpu_count() or 1) + 1, 4))  # one more than cores: tests wait for browsers and processes
OF_THE_BOOK = ("notebooks", "tests/book", "tests/pages")  # tests of what is executed and built
NOTEBOOKS = ("--nbval", "--nbval-current-env")
PATIENCE = 20  # seconds that a program has to end its own processes after Ctrl-C


def environment() -> dict[str, str]:
    """A kernel's, and without what would change which tests are run."""
    return {name: value for name, value in execute.clean_environment().items() if not re.match("PYTEST_", name)}


class Step:
    """A program of this Python at work. Beside others it says nothing until it is waited for."""

    def __init__(self, title: str, *arguments: str, beside_others: bool = False) -> None:
        self.title, self.start = title, time.perf_counter()
        if not beside_others:
            print(f"== {title}", flush=True)
        quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} if beside_others else {}
        self.process = subprocess.Popen(
            [sys.executable, "-m", *arguments], cwd=book.ROOT, env=environment(), text=True, encoding="utf-8", **quiet
        )

    def passes(self) -> bool:
        """Wait for its end. After Ctrl-C, which the program gets, too, it has time to clean up."""
        try:
            written, _ = self.process.communicate()
        except KeyboardInterrupt:
            self.end()
            raise
        if written is not None:
            print(f"== {self.title}\n{written}", end="", flush=True)
        return self.process.returncode == 0

    def end(self) -> None:
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def run(title: str, *arguments: str) -> bool:
    step = Step(title, *arguments)
    good = step.passes()
    if arguments[0] != "pytest":  # whose summary, the last line, says it itself
        print(f"   {time.perf_counter() - step.start:.0f} s", flush=True)
    return good


def style(files: Iterable[str] = (), types: bool = True) -> list[Step]:
    """What looks at the code without running it, begun."""
    steps = [
        Step("style", "ruff", "check", "-q", *files, beside_others=True),
        Step("format", "ruff", "format", "--check", "-q", *files, beside_others=True),
    ]
    return [*steps, Step("types of the helpers", "mypy", beside_others=True)] if types else steps


def layout(*chapters: str) -> Step:
    return Step("layout of the chapters' code", "tools.layout", "--check", *chapters, beside_others=True)


def a_browser() -> Step:
    return Step("a browser", "tools.browser", beside_others=True)


def tests(*arguments: str) -> bool:
    return run("tests", "pytest", "-q", "-n", WORKERS, "--dist", "loadscope", *NOTEBOOKS, *arguments)


def outcome(passed: dict[str, bool]) -> int:
    failed = [name for name, good in passed.items() if not good]
    if failed:
        print(f"FAILED: {', '.join(failed)}")
    return 1 if failed else 0


def everything(options: list[str]) -> int:
    beside = [*style(), layout(), a_browser()]
    try:
        passed = {"the book": run("notebooks and pages", "tools.build")}
        passed |= {step.title: step.passes() for step in beside}
        try:
            first = affected.select(affected.changed()).pages
        except affected.Unknown:
            first = frozenset()  # without git nothing comes first
        passed["tests"] = tests(*(f"--first={page}" for page in sorted(first)), *options)
    finally:
        for step in beside:
            step.end()
    return outcome(passed)


def some(names: list[str], options: list[str]) -> int:
    """Check what the named pages, or else what differs from main, can have broken."""
    try:
        files = affected.named(names) if names else affected.changed()
        chosen = affected.select(files, same_code=[] if names else affected.only_text(files))
    except affected.Unknown as error:
        print(error, file=sys.stderr)
        return 1
    if not chosen.files:
        print("Nothing differs from main: there is nothing to check.")
        return 0
    print("changed: " + " ".join(chosen.files))
    of_the_book = [test for test in chosen.tests if test.startswith(OF_THE_BOOK)]
    others = [test for test in chosen.tests if test not in of_the_book]
    if chosen.under_every_chapter:
        print("Every chapter is stale now; notebooks and pages are not looked at: `make book`, `make test`.")
        of_the_book = []
    options = [
        *(f"--about={page}" for page in sorted(chosen.pages)), *(f"--whole={test}" for test in chosen.whole), *options,
    ]  # fmt: skip
    there = [name for name in chosen.python if (book.ROOT / name).exists()]
    beside = style(there, types=any(name.startswith("helpers/") for name in there)) if there else []
    passed = {}
    try:
        if of_the_book:
            if others:  # they run while the book is made; two writers would mix up pytest's cache
                alone = ("-q", "-p", "no:cacheprovider")
                beside.append(Step("tests that need no book", "pytest", *alone, *others, *options, beside_others=True))
            if chosen.looks_at_the_site:
                beside.append(a_browser())
            if chosen.chapters:
                beside.append(layout(*chosen.chapters))
                passed["the chapters"] = run("chapters", "tools.execute", *chosen.chapters)
            if chosen.looks_at_the_site:
                passed["the book"] = run("pages", "tools.build")
        passed |= {step.title: step.passes() for step in beside}
        last = of_the_book or others
        if last:
            passed["tests"] = tests(*last, *options)
    finally:
        for step in beside:
            step.end()
    return outcome(passed)


def main() -> int:
    arguments = sys.argv[1:]
    end = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(prog="python -m tools.check", description=__doc__.splitlines()[0])
    parser.add_argument("--changed", nargs="*", metavar="PAGE", help="only what changed, or what these pages can break")
    parser.add_argument("--all", action="store_true", help="plant every mistake again")
    asked = parser.parse_args(arguments[:end])
    names, options = asked.changed, [*(["--all-mistakes"] if asked.all else []), *arguments[end + 1 :]]
    return everything(options) if names is None else some(names, options)


if __name__ == "__main__":
    sys.exit(command.run(main))
