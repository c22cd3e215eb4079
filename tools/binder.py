"""Do what Binder does, as far as it goes without Docker: install its environment and run a notebook in its server.

A copy of the repository gets a fresh environment from binder/postBuild. A real Jupyter server is started in it, asked
for JupyterLab's page of a notebook, and told to start the notebook's kernel; what the cells print in that kernel must
be what is stored.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from jupyter_client import BlockingKernelClient

from tools import chapters as book
from tools.environment import CPU_INDEX, reachable


def copy_of_repository(folder: Path) -> Path:
    """The files of the repository, without what is made from them."""
    made = [".git", ".venv*", ".nox", "_build", "build", "__pycache__", ".*_cache", "*.egg-info", ".hypothesis"]
    return Path(shutil.copytree(book.ROOT, folder / "repository", ignore=shutil.ignore_patterns(*made)))


def install(repository: Path, folder: Path) -> Path:
    """Binder's environment; returns its folder of programs."""
    subprocess.run([sys.executable, "-m", "venv", folder / "environment"], check=True)
    programs = folder / "environment" / "bin"
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    if not reachable(CPU_INDEX):
        print("PyTorch's CPU index cannot be reached from here: its build of torch must be where pip looks besides.")
        environment["PIP_RETRIES"] = "0"
    subprocess.run([repository / "binder" / "postBuild"], cwd=repository, env=environment, check=True)
    return programs


@contextlib.contextmanager
def server(programs: Path, repository: Path, runtime: Path) -> Iterator[tuple[str, str]]:
    """A Jupyter server in the repository: its address and token."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    options = ["--no-browser", "--ip=127.0.0.1", f"--port={port}", f"--IdentityProvider.token={token}", "--allow-root"]
    process = subprocess.Popen(
        [programs / "jupyter", "lab", *options],
        cwd=repository,
        env={**os.environ, "JUPYTER_RUNTIME_DIR": str(runtime)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
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


def printed(connection: Path, sources: list[str]) -> str:
    """What these cells write to standard output, executed one after the other in the kernel of this connection file."""
    text = ""

    def collect(message: dict) -> None:
        nonlocal text
        if message["msg_type"] == "stream" and message["content"]["name"] == "stdout":
            text += message["content"]["text"]

    client = BlockingKernelClient(connection_file=str(connection))
    client.load_connection_file()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        for source in sources:
            answer = client.execute_interactive(source, timeout=120, output_hook=collect)["content"]
            if answer["status"] != "ok":
                raise RuntimeError(f"{answer['ename']}: {answer['evalue']}\nin\n{source}")
    finally:
        client.stop_channels()
    return text


def main() -> int:
    if os.name == "nt":
        print("Binder is Linux; this check needs a POSIX system.")
        return 0
    notebook = sys.argv[1] if len(sys.argv) > 1 else f"{book.chapters()[0].stem}.ipynb"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        repository, runtime = copy_of_repository(folder), folder / "runtime"
        print("Installing Binder's environment", flush=True)
        programs = install(repository, folder)
        size = sum(file.stat().st_size for file in (folder / "environment").rglob("*") if file.is_file())
        print(f"It takes {size / 1e9:.1f} GB.", flush=True)
        with server(programs, repository, runtime) as (address, token):
            ask(address, token, f"/lab/tree/notebooks/{notebook}")
            path = f"notebooks/{notebook}"
            stored = json.loads(ask(address, token, f"/api/contents/{path}"))["content"]
            request = {"path": path, "name": notebook, "type": "notebook", "kernel": {"name": "python3"}}
            kernel = json.loads(ask(address, token, "/api/sessions", request))["kernel"]["id"]
            sources = [cell["source"] for cell in stored["cells"] if cell["cell_type"] == "code"]
            fresh = printed(runtime / f"kernel-{kernel}.json", sources)
    expected = book.printed(book.read_notebook(book.NOTEBOOKS / notebook))
    if fresh != expected:
        print(f"{notebook} printed\n{fresh}\nand not, as stored,\n{expected}")
        return 1
    print(f"{notebook}: {len(sources)} cells ran in the server's kernel and printed what is stored.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
