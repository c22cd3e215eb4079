"""What a Jupyter server does that `make lab` starts, beside what the reader's own configuration says.

Looking at the chapters' notebooks and running them leaves a clone as it was.
"""

import platform
import sys
from pathlib import Path

import nbformat
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.notebooks import tidy


def is_chapters(model):
    """Whether this is the notebook of a chapter, as the pipeline marks them, with its content."""
    return model["type"] == "notebook" and bool(model["content"]) and "book" in model["content"]["metadata"]


def store_as_the_book_does(model, **rest):
    """Before a chapter's notebook is saved: bring it to the form in which the repository has it."""
    if is_chapters(model):
        notebook = nbformat.from_dict(model["content"])
        tidy(notebook)
        model["content"] = notebook


class Chapters(AsyncLargeFileManager):
    """Jupyter's way to files, with two additions for the chapters' notebooks."""

    def __init__(self, **options):
        super().__init__(**options)
        self.register_pre_save_hook(store_as_the_book_does)  # if it fails, Jupyter says so and saves all the same

    async def get(self, path, *arguments, **options):
        """The file. Where Lab finds another version of Python than its kernel's, it takes the notebook for changed."""
        model = await super().get(path, *arguments, **options)
        if is_chapters(model):
            model["content"]["metadata"].setdefault("language_info", {})["version"] = platform.python_version()
        return model


c = get_config()  # noqa: F821
c.ServerApp.contents_manager_class = Chapters
# The notebooks are made from the chapters and cannot be turned back: jupytext must not open, pair or save them.
c.ServerApp.jpserver_extensions.update({"jupyterlab_jupytext": False})
