"""Benchmarks store a run whole or not at all, as the same bytes on every system, and lose no number."""

from __future__ import annotations

import json

import pytest

from benchmarks import measure, scale
from helpers import files
from helpers.page.notebook import read_run


def test_a_run_is_stored_as_it_is_read(tmp_path):
    file = tmp_path / "new" / "a.json"
    measure.write_run(file, "python -m benchmarks.a", {"rows": ["±", None, 1.5]})
    assert read_run(file)["rows"] == ["±", None, 1.5]
    content = file.read_bytes()
    assert "±".encode() in content and b"\r" not in content and content.endswith(b"}\n")


def test_what_cannot_be_stored_is_printed_and_the_old_run_stays(tmp_path, monkeypatch):
    file = tmp_path / "a.json"
    measure.write_run(file, "python -m benchmarks.a", {"rows": [1]})

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(SystemExit, match=r"cannot be written: .*No space left") as stopped:
        measure.write_run(file, "python -m benchmarks.a", {"rows": [2]})
    printed, _ = json.JSONDecoder().raw_decode(stopped.value.code)
    assert printed["rows"] == [2]
    assert read_run(file)["rows"] == [1]
    # What JSON has no word for does not touch the old run either.
    with pytest.raises(TypeError):
        measure.write_run(file, "python -m benchmarks.a", {"rows": {1, 2}})
    assert read_run(file)["rows"] == [1]


def test_half_a_run_is_not_added_to_a_damaged_one(tmp_path, monkeypatch, capsys):
    file = tmp_path / "scale.json"
    file.write_text('{"date": ', encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["scale", "--only", "million", "--json", str(file)])
    monkeypatch.setattr(scale, "million", lambda: pytest.fail("it should stop before it measures"))
    with pytest.raises(SystemExit):
        scale.main()
    assert str(file) in capsys.readouterr().err
