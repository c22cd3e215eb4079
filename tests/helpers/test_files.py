"""A file is whole whatever happens while it is written."""

import errno
import os
import stat
import subprocess
import sys
import threading

import pytest

from helpers import files
from helpers.files import write_whole

# The module alone, so that nothing else needs to be imported; at the named moment the process dies as by kill -9.
DIE = """
import importlib.util, os, pathlib, sys
spec = importlib.util.spec_from_file_location("files", sys.argv[1])
files = importlib.util.module_from_spec(spec)
spec.loader.exec_module(files)
setattr(*{"forced": (os, "fsync"), "renamed": (pathlib.Path, "replace")}[sys.argv[3]], lambda *_: os._exit(9))
files.write_whole(sys.argv[2], b"new" * 1000)
"""


def test_it_is_written_and_replaced_and_its_folder_is_made(tmp_path):
    file = tmp_path / "a ü" / "b.json"
    for content in (b"one\n", b"", b"two\r\n"):
        write_whole(file, content)
        assert file.read_bytes() == content
    assert list(file.parent.iterdir()) == [file]


def test_all_of_it_is_forced_to_the_disk_and_then_its_name(tmp_path, monkeypatch):
    """What a power cut would take: bytes still in the program when the file is forced, or the entry in the folder."""
    forced = []

    def force(descriptor):
        status = os.fstat(descriptor)
        forced.append("folder" if stat.S_ISDIR(status.st_mode) else status.st_size)

    monkeypatch.setattr(files.os, "fsync", force)
    write_whole(tmp_path / "in" / "two folders" / "a.pt", b"new" * 1000)
    assert forced == ([3000, "folder"] if hasattr(os, "O_DIRECTORY") else [3000])


@pytest.mark.parametrize("moment", ["forced", "renamed"])
def test_a_kill_in_the_middle_leaves_the_old_file(tmp_path, moment):
    file = tmp_path / "a.pt"
    file.write_bytes(b"old")
    died = subprocess.run([sys.executable, "-c", DIE, files.__file__, str(file), moment], check=False)
    assert died.returncode == 9
    assert file.read_bytes() == b"old"
    (draft,) = tmp_path.glob("*.tmp")
    write_whole(file, b"newer")  # the draft that was left is in nobody's way
    assert file.read_bytes() == b"newer" and draft.exists()


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_an_error_leaves_the_old_file_and_no_draft(tmp_path, monkeypatch, where):
    file = tmp_path / "a.pt"
    file.write_bytes(b"old")

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*{"fsync": (files.os, "fsync"), "replace": (files.Path, "replace")}[where], fail)
    with pytest.raises(OSError, match="space"):
        write_whole(file, b"new")
    assert file.read_bytes() == b"old" and list(tmp_path.iterdir()) == [file]


def test_who_reads_while_others_write_meets_a_whole_file(tmp_path):
    file, size = tmp_path / "a.pt", 300_000
    write_whole(file, b"x" * size)

    def write(letter):
        for _ in range(10):
            # Windows does not replace a file that somebody has open; then it stays the old one.
            try:
                write_whole(file, letter * size)
            except PermissionError:
                assert os.name == "nt"

    writers = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b")]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        content = file.read_bytes()
        assert len(content) == size and len(set(content)) == 1
    assert list(tmp_path.iterdir()) == [file]
