"""Find a Chromium for the tests of the pages, or get one.

Looked for, in this order: the path in CHROMIUM; one on the PATH; macOS's and Windows' usual places; the one that
Playwright installed. If there is none, Playwright's is installed, or Debian's by apt where we may.

    python -m tools.browser            print the path of a browser, after getting one if need be
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge", "microsoft-edge")
PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
    "C:/Program Files (x86)/Microsoft/Edge/Application/msedge.exe",
)
MISSING = """\
No Chromium was found and none could be installed, so the pages cannot be tested in a browser. Any one of these helps:
  - CHROMIUM=/path/to/chromium make test
  - install Chromium, Chrome or Edge with your system's packages, so that it is on the PATH
  - {python} -m playwright install --with-deps chromium
"""


class NoBrowser(Exception):
    """There is no browser; the message says how to get one."""


def find() -> str | None:
    """The path of a Chromium that is here already."""
    named = os.environ.get("CHROMIUM")
    if named:
        if Path(named).is_file():
            return named
        raise NoBrowser(f"CHROMIUM={named}: there is no such file.")
    on_path = next((path for name in NAMES if (path := shutil.which(name))), None)
    return on_path or next((place for place in PLACES if Path(place).is_file()), None) or _playwrights()


def _playwrights() -> str | None:
    """The path of Playwright's own Chromium, if it is installed."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if path and Path(path).is_file() else None


def install() -> None:
    """Try to get a Chromium: Playwright's, then Debian's."""
    print("No Chromium here yet; trying to install Playwright's.", flush=True)
    if _run([sys.executable, "-m", "playwright", "install", "chromium"], seconds=300) and _playwrights():
        return
    if shutil.which("apt-get") and hasattr(os, "geteuid") and os.geteuid() == 0:
        print("That did not work; trying Debian's.", flush=True)
        if _run(["apt-get", "update", "-qq"], seconds=120):
            packages = ["chromium", "fonts-dejavu-core"]
            _run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages], seconds=300)


def _run(command: list[str], seconds: int) -> bool:
    try:
        result = subprocess.run(command, timeout=seconds, capture_output=True, text=True, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"  {command[0]}: {error}", flush=True)
        return False
    if result.returncode:
        print(f"  {' '.join(command[:4])}: {(result.stderr or result.stdout).strip().splitlines()[-1:]}", flush=True)
    return result.returncode == 0


def ensure() -> str:
    """The path of a Chromium, installed if need be.

    Raises:
        NoBrowser: if none can be had.
    """
    path = find()
    if path is None:
        install()
        path = find()
    if path is None:
        raise NoBrowser(MISSING.format(python=sys.executable))
    return path


if __name__ == "__main__":
    try:
        print(ensure())
    except NoBrowser as error:
        sys.exit(str(error))
