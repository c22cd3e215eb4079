"""Prepare the Python environment `.venv`: find a Python that is new enough, and let tools/environment.py do the work.

Every Python back to 2.7 must be able to read this file, to say that it is too old: so no newer syntax here, and ASCII.

    python3 tools/env.py           make the environment if it is not there
    python3 tools/env.py --this    the same, and make it anew if it is of another Python than this one
"""

import os
import platform
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OLDEST = (3, 11)


def newer():
    """A Python on the PATH that is new enough, or None. A name may be there and not start: pyenv's do."""
    for name in ("python3.13", "python3.12", "python3.11"):
        try:
            if subprocess.call([name, "-c", ""], stderr=subprocess.PIPE) == 0:
                return name
        except OSError:
            pass
    return None


def main(arguments):
    if sys.version_info >= OLDEST:
        sys.path[0] = ROOT
        from tools.environment import main as prepare

        return prepare("--this" in arguments)
    found = None if "--this" in arguments else newer()
    if found:
        return subprocess.call([found, os.path.abspath(__file__)] + arguments)
    sys.stderr.write(
        "\nThe book needs Python 3.11 or newer; this is %s. Install one, or name it: make PYTHON=/path/to/python3\n\n"
        % platform.python_version()
    )
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
