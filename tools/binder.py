"""Do what Binder does, as far as it goes without Docker: install its environment and run a notebook in its server.

A copy of the repository gets a fresh environment from binder/requirements.txt and binder/postBuild. A real Jupyter
server is started in it, JupyterLab is asked for a notebook, and the notebook's cells are executed through REST and the
kernel's websocket; what they print must be what is stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

from tornado.websocket import websocket_connect

from tools import chapters as book
from tools.env import CPU_INDEX, reachable


def copy_of_repository(folder: Path) -> Path:
    """The files of the repository, without what is made from them."""
    skipped = shutil.ignore_patterns(".git", ".venv", "_build", "__pycache__", ".*_cache", "*.egg-info", ".hypothesis")
    return Path(shutil.copytree(book.ROOT, folder / "repository", ignore=skipped))


def install(repository: Path, folder: Path) -> Path:
    """Binder's environment; returns its folder of programs."""
    environment = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    programs = environment / "bin"
    requirements = (repository / "binder" / "requirements.txt").read_text(encoding="utf-8")
    if not reachable(CPU_INDEX):
        print("PyTorch's CPU index cannot be reached from here: the same pins, from the configured registry.")
        requirements = re.sub(r"^--extra-index-url.*\n", "", requirements, flags=re.MULTILINE)
        local = subprocess.run(
            [
                programs / "pip",
                "download",
                "-q",
                "--no-deps",
                "-d",
                folder,
                *re.findall(r"^torch==\S+", requirements, re.M),
            ],
            capture_output=True,
            check=False,
        )
        if local.returncode:  # no CPU build there either; whatever build of the same version there is
            requirements = re.sub(r"^(torch==[\d.]+)\+cpu", r"\1", requirements, flags=re.MULTILINE)
    pinned = folder / "requirements.txt"
    pinned.write_text(requirements, encoding="utf-8")
    subprocess.run([programs / "pip", "install", "-q", "-r", pinned], cwd=repository, check=True)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    subprocess.run([repository / "binder" / "postBuild"], cwd=repository, env={**os.environ, "PATH": path}, check=True)
    return programs


@contextlib.contextmanager
def server(programs: Path, repository: Path) -> Iterator[tuple[str, str]]:
    """A Jupyter server in the repository: its address and token."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    options = ["--no-browser", "--ip=127.0.0.1", f"--port={port}", f"--IdentityProvider.token={token}", "--allow-root"]
    process = subprocess.Popen(
        [programs / "jupyter", "lab", *options], cwd=repository, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            with contextlib.suppress(OSError):
                ask(address, token, "/api/status")
                break
            if process.poll() is not None:
                raise RuntimeError("the Jupyter server ended at once")
            time.sleep(0.5)
        else:
            raise RuntimeError("the Jupyter server did not answer within a minute")
        yield address, token
    finally:
        process.terminate()
        process.wait(timeout=30)


def ask(address: str, token: str, path: str, body: dict | None = None) -> str:
    """GET, or POST with a body."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address + path, data=data, headers={"Authorization": f"token {token}"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read().decode()


async def printed(address: str, token: str, session: dict, sources: list[str]) -> str:
    """What these cells write to standard output, executed one after the other in the session's kernel."""
    url = f"{address.replace('http', 'ws', 1)}/api/kernels/{session['kernel']['id']}/channels?token={token}"
    socket_ = await websocket_connect(url)
    text = ""
    for source in sources:
        header = {
            "msg_id": uuid.uuid4().hex,
            "msg_type": "execute_request",
            "session": "s",
            "username": "",
            "version": "5.3",
        }
        content = {"code": source, "silent": False, "store_history": True, "allow_stdin": False, "stop_on_error": True}
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
        await socket_.write_message(json.dumps(message))
        done = False
        while not done:
            answer = json.loads(await asyncio.wait_for(socket_.read_message(), timeout=120))
            if answer["parent_header"].get("msg_id") != header["msg_id"]:
                continue
            kind, content = answer["msg_type"], answer["content"]
            if kind == "error":
                raise RuntimeError(f"{content['ename']}: {content['evalue']}\nin\n{source}")
            if kind == "stream" and content["name"] == "stdout":
                text += content["text"]
            done = kind == "status" and content["execution_state"] == "idle"
    socket_.close()
    return text


def main() -> int:
    if os.name == "nt":
        print("Binder is Linux; this check needs a POSIX system.")
        return 0
    notebook = sys.argv[1] if len(sys.argv) > 1 else f"{book.chapters()[0].stem}.ipynb"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        repository = copy_of_repository(folder)
        print("Installing Binder's environment", flush=True)
        programs = install(repository, folder)
        size = sum(file.stat().st_size for file in (folder / "environment").rglob("*") if file.is_file())
        print(f"It takes {size / 1e9:.1f} GB.")
        extensions = subprocess.run(
            [programs / "jupyter", "labextension", "list"], capture_output=True, text=True, check=True
        )
        if "jupyterlab-myst" not in extensions.stdout + extensions.stderr:
            print("jupyterlab_myst is not there: the notebooks' directives would show as raw text.")
            return 1
        with server(programs, repository) as (address, token):
            ask(address, token, f"/lab/tree/notebooks/{notebook}")
            path = f"notebooks/{notebook}"
            stored = json.loads(ask(address, token, f"/api/contents/{path}"))["content"]
            request = {"path": path, "name": notebook, "type": "notebook", "kernel": {"name": "python3"}}
            session = json.loads(ask(address, token, "/api/sessions", request))
            cells = [cell for cell in stored["cells"] if cell["cell_type"] == "code"]
            fresh = asyncio.run(printed(address, token, session, [cell["source"] for cell in cells]))
    expected = book.printed(book.read_notebook(book.NOTEBOOKS / notebook))
    if fresh != expected:
        print(f"{notebook} printed\n{fresh}\nand not, as stored,\n{expected}")
        return 1
    print(f"{notebook}: {len(cells)} cells ran through the server and printed what is stored.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
