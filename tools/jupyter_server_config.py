"""What a Jupyter server does that `make lab` starts; the reader's own configuration is read as well.

Looking at the notebooks and running them leaves a clone as it was.
"""

import sys
import warnings
from pathlib import Path

import nbformat

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.notebooks import tidy


def store_as_the_book_does(model, **rest):
    """Before a chapter's notebook is saved: bring it to the form in which the repository has it."""
    if model["type"] == "notebook" and "book" in model["content"]["metadata"]:
        notebook = nbformat.from_dict(model["content"])
        tidy(notebook)
        model["content"] = notebook


# Jupyter sets the hook twice, and says so to the reader.
warnings.filterwarnings("ignore", message="Overriding existing pre_save_hook")

c = get_config()  # noqa: F821
c.FileContentsManager.pre_save_hook = store_as_the_book_does
# The notebooks are made from the chapters and cannot be turned back, so jupytext must not pair, open or save them.
c.ServerApp.jpserver_extensions.update({"jupyterlab_jupytext": False})
