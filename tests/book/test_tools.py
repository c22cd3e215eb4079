"""The tools: what they make of a registry without CPU builds, and of a machine without a browser."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tools import browser, env
from tools import chapters as book


def test_a_named_browser_that_is_not_there_is_an_error(monkeypatch):
    monkeypatch.setenv("CHROMIUM", "/no/such/chromium")
    with pytest.raises(browser.NoBrowser, match="/no/such/chromium"):
        browser.find()


def test_without_a_browser_it_says_what_helps(monkeypatch):
    monkeypatch.setattr(browser, "find", lambda: None)
    monkeypatch.setattr(browser, "install", lambda: None)
    with pytest.raises(browser.NoBrowser, match="playwright install"):
        browser.ensure()


def test_without_the_list_of_mistakes_the_error_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tests/mistakes\.toml"):
        book.mistakes(tmp_path / "mistakes.toml")
