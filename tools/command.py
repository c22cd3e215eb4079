"""How the commands of this folder start and end: one at a time in a checkout, and a foreseeable fault is a sentence."""

from __future__ import annotations

import contextlib
import errno
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from tools.notebooks import Unreadable

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "_build" / "lock"
REMEDIES = {
    errno.ENOSPC: "The disk is full: free some space, and run it again. What was finished is kept.",
    errno.EDQUOT: "The disk's quota is used up: free some space, and run it again. What was finished is kept.",
    errno.EFBIG: "No file may grow that large here: raise the limit (ulimit -f), and run it again.",
    errno.EROFS: "Nothing can be written there: work in a copy of the repository that is yours to write.",
    errno.EACCES: "Nothing can be written there: work in a copy of the repository that is yours to write.",
    errno.EPERM: "Nothing can be written there: work in a copy of the repository that is yours to write.",
    errno.EADDRINUSE: "That port is taken: name another one (make serve PORT=8001).",
}
INTERRUPTED = 130  # what a shell expects of a program that Ctrl-C ended


class Failed(Exception):
    """The command cannot do what it was asked for; the message says why and what to do."""


def run(main: Callable[[], int]) -> int:
    """Run a command. What can be foreseen ends it with a message and no traceback."""
    try:
        return main()
    except (Unreadable, Failed) as error:
        print(error, file=sys.stderr)
    except OSError as error:
        print(explained(error), file=sys.stderr)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED
    return 1


def explained(error: OSError) -> str:
    """What happened to which file, and what helps."""
    if error.errno is None:
        return str(error)
    what = f"{error.filename}: {error.strerror}." if error.filename else f"{error.strerror}."
    return f"{what} {REMEDIES.get(error.errno, '')}".rstrip()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Nothing else writes in this checkout meanwhile; a second run waits for the first, and says so.

    The system gives the lock back however its holder ends.
    """
    LOCK.parent.mkdir(exist_ok=True)
    lock = FileLock(LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print("Another run is at work in this checkout; waiting for it (Ctrl-C ends the wait).", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
