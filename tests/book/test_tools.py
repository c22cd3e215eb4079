"""The tools: what they say where something is missing."""

from __future__ import annotations

import pytest
from playwright.sync_api import Error

from tools import browser
from tools import chapters as book


class Chromium:
    """Starts only with these options."""

    def __init__(self, **starts_with):
        self.starts_with, self.tried = starts_with, []

    def launch(self, args, **options):
        self.tried.append(options)
        if options != self.starts_with:
            raise Error("Executable does not exist")
        return "a browser"


def test_the_first_browser_that_starts_is_taken(monkeypatch):
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setattr(browser.shutil, "which", {"chromium": "/usr/bin/chromium"}.get)
    edge = Chromium(channel="msedge")
    assert browser.launch(edge) == "a browser"
    assert edge.tried == [{"executable_path": "/usr/bin/chromium"}, {"channel": "chrome"}, {"channel": "msedge"}]


def test_a_browser_that_is_asked_for_is_the_only_one_tried():
    chrome = Chromium(headless=False, channel="chrome")
    assert browser.launch(chrome, headless=False, channel="chrome") == "a browser"
    assert len(chrome.tried) == 1


def test_a_named_browser_that_is_not_there_is_an_error(monkeypatch):
    monkeypatch.setenv("CHROMIUM", "/no/such/chromium")
    monkeypatch.setattr(browser, "install", lambda: pytest.fail("another is not what was asked for"))
    with pytest.raises(browser.NoBrowser, match="/no/such/chromium"):
        browser.ensure()


def test_without_a_browser_it_says_what_was_tried_and_what_helps(monkeypatch):
    monkeypatch.delenv("CHROMIUM", raising=False)
    with pytest.raises(browser.NoBrowser, match=r"playwright install(.|\n)*msedge: Executable does not exist"):
        browser.launch(Chromium(channel="none such"))


def test_a_browser_is_installed_only_where_none_starts(monkeypatch):
    monkeypatch.delenv("CHROMIUM", raising=False)
    installed = []

    def name():
        if not installed:
            raise browser.NoBrowser
        return "chromium 1"

    monkeypatch.setattr(browser, "name", name)
    monkeypatch.setattr(browser, "install", lambda: installed.append(True))
    assert browser.ensure() == browser.ensure() == "chromium 1"
    assert len(installed) == 1


def test_without_the_list_of_mistakes_the_error_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tests/mistakes\.toml"):
        book.mistakes(tmp_path / "mistakes.toml")
