"""The tools: what they make of a registry without CPU builds, and of a machine without a browser."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tools import browser, env
from tools import chapters as book


def report(*names):
    return {"install": [{"metadata": {"name": name}} for name in names]}


def test_cuda_is_noticed():
    assert env.comes_with_cuda(report("torch", "nvidia-cublas"))
    assert not env.comes_with_cuda(report("torch", "sympy"))


def dry_run(*names):
    import json

    return lambda *arguments, **options: SimpleNamespace(returncode=0, stdout=json.dumps(report(*names)).encode())


def test_gigabytes_of_cuda_stop_the_installation(monkeypatch):
    monkeypatch.setattr(env.platform, "system", lambda: "Linux")
    monkeypatch.setattr(env, "reachable", lambda url: False)
    monkeypatch.setattr(env, "pip", dry_run("torch", "nvidia-cublas"))
    monkeypatch.delenv("BOOK_ALLOW_CUDA", raising=False)
    with pytest.raises(env.Stop, match="BOOK_ALLOW_CUDA=1"):
        env.torch_options()
    monkeypatch.setenv("BOOK_ALLOW_CUDA", "1")
    assert env.torch_options() == []


def test_a_cpu_build_is_taken_wherever_it_is(monkeypatch):
    monkeypatch.setattr(env.platform, "system", lambda: "Linux")
    monkeypatch.setattr(env, "reachable", lambda url: True)
    assert env.torch_options() == ["--extra-index-url", env.CPU_INDEX]
    monkeypatch.setattr(env, "reachable", lambda url: False)
    monkeypatch.setattr(env, "pip", dry_run("torch", "sympy"))
    assert env.torch_options() == []


def test_torch_is_pinned():
    assert env.torch_requirement().startswith("torch==")


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
