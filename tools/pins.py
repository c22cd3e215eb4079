"""What requirements/ pins, read with nothing but the standard library."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PIN = re.compile(r"^([A-Za-z0-9][\w.-]*)==([^\s;]+)", re.MULTILINE)


def pins(name: str, root: Path = ROOT) -> dict[str, str]:
    """Package -> version, of one file in requirements/. A lock has one version of a package for every Python."""
    return dict(PIN.findall((root / "requirements" / name).read_text(encoding="utf-8")))


def digits_pins(root: Path = ROOT) -> list[str]:
    """Everything whose version can change a printed digit or a figure, as sorted ``name==version``."""
    decisive = {**pins("book.txt", root), "torch": pins("book.in", root)["torch"]}
    return sorted(f"{name}=={version}" for name, version in decisive.items())
