"""A file is written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path


def write_whole(file: Path | str, content: bytes) -> None:
    """Write ``content``, or leave ``file`` as it was: whoever reads meets the old file or the new one, never a half.

    It is written beside the file, as a draft with a name of its own, forced to the disk, and renamed; so neither a
    power cut nor another process that writes the same file does harm. The draft of a killed process (``*.tmp``) can be
    deleted. Raises OSError if the folder cannot be written, or the disk is full.
    """
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f"{file.stem}.{uuid.uuid4().hex}.tmp")
    try:
        with draft.open("xb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        draft.replace(file)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one that counts
            draft.unlink()
        raise
    # The new name, too, is on the disk only when its folder is. Windows opens no folders, some file systems force none.
    if hasattr(os, "O_DIRECTORY"):
        with contextlib.suppress(OSError):
            folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
