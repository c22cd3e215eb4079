"""Find a Chromium for the tests of the pages, or get one.

Tried, in this order: the path in CHROMIUM; Chromium on the PATH; Chrome and Edge, where Playwright knows them on every
system; Playwright's own Chromium. If none starts, Playwright's is installed, or Debian's by apt where we may.

    python -m tools.browser            say which browser starts, after getting one if need be
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserType, Error, sync_playwright

# A root user has no sandbox; the rest keeps a browser from looking for updates while it is tested.
SWITCHES = "no-sandbox disable-gpu disable-background-networking disable-component-update disable-sync"
QUIET = [f"--{switch}" for switch in SWITCHES.split()]
MISSING = """\
No Chromium was found and none could be installed, so the pages cannot be tested in a browser. Any one of these helps:
  - CHROMIUM=/path/to/chromium make test
  - install Chromium, Chrome or Edge with your system's packages
  - {python} -m playwright install --with-deps chromium
"""


class NoBrowser(Exception):
    """There is no browser; the message says how to get one."""


def places() -> list[dict[str, Any]]:
    """Where a browser may be, as options of Playwright's `launch`."""
    named = os.environ.get("CHROMIUM")
    if named:
        if not Path(named).is_file():
            raise NoBrowser(f"CHROMIUM={named}: there is no such file.")
        return [{"executable_path": named}]
    on_path = filter(None, map(shutil.which, ("chromium", "chromium-browser")))
    return [*({"executable_path": path} for path in on_path), {"channel": "chrome"}, {"channel": "msedge"}, {}]


def launch(chromium: BrowserType, **options: Any) -> Browser:
    """Start the first browser that starts; with a channel or a path among the options, that one.

    Raises:
        NoBrowser: if none does.
    """
    chosen = [{}] if {"channel", "executable_path"} & options.keys() else places()
    refusals = []
    for place in chosen:
        try:
            return chromium.launch(args=QUIET, **(options | place))
        except Error as error:
            refusals.append(f"  {next(iter(place.values()), 'Playwright')}: {str(error).strip().splitlines()[0]}")
    raise NoBrowser("\n".join([MISSING.format(python=sys.executable), *refusals]))


def name() -> str:
    """Name and version of the browser that starts.

    Raises:
        NoBrowser: if none does.
    """
    with sync_playwright() as playwright:
        browser = launch(playwright.chromium)
        found = f"{browser.browser_type.name} {browser.version}"
        browser.close()
    return found


def install() -> None:
    """Try to get a Chromium: Playwright's, then Debian's."""
    print("No Chromium here yet; trying to install Playwright's.", flush=True)
    if _run([sys.executable, "-m", "playwright", "install", "chromium"], seconds=300):
        return
    if shutil.which("apt-get") and hasattr(os, "geteuid") and os.geteuid() == 0:
        print("That did not work; trying Debian's.", flush=True)
        if _run(["apt-get", "update", "-qq"], seconds=120):
            packages = ["chromium", "fonts-dejavu-core"]
            _run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages], seconds=300)


def _run(command: list[str], seconds: int) -> bool:
    try:
        result = subprocess.run(
            command, timeout=seconds, capture_output=True, text=True, encoding="utf-8", errors="replace", check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"  {command[0]}: {error}", flush=True)
        return False
    if result.returncode:
        print(f"  {' '.join(command[:4])}: {(result.stderr or result.stdout).strip().splitlines()[-1:]}", flush=True)
    return result.returncode == 0


def ensure() -> str:
    """Name and version of a browser that starts, installed if need be.

    Raises:
        NoBrowser: if none can be had.
    """
    named = os.environ.get("CHROMIUM")
    if named and not Path(named).is_file():
        raise NoBrowser(f"CHROMIUM={named}: there is no such file.")
    try:
        return name()
    except NoBrowser:
        if named:
            raise
        install()
        return name()


if __name__ == "__main__":
    try:
        print(ensure())
    except NoBrowser as error:
        sys.exit(str(error))
