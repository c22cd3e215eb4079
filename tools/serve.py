"""Preview the book on this computer. A saved edit runs what is stale, renders, and the open page reloads itself."""

from __future__ import annotations

import functools
import http.server
import sys
import threading
import time
from pathlib import Path

from tools import build, execute
from tools import chapters as book

WATCHED = ("book", "helpers", "tests/mistakes.toml", "_config.yml", "_toc.yml", "requirements.txt")
RELOAD = b"""<script>
let seen; setInterval(async () => { const now = await (await fetch("/__version")).text();
if (seen !== undefined && seen !== now) location.reload(); seen = now; }, 1000);
</script></body>"""
version = 0


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the site; a page gets a few lines that reload it after a build."""

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if self.path == "/__version":
            self._send(str(version).encode(), "text/plain")
        elif path.suffix == ".html" and path.is_file():
            self._send(path.read_bytes().replace(b"</body>", RELOAD), "text/html; charset=utf-8")
        else:
            super().do_GET()

    def _send(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Quiet."""


def state() -> dict[Path, float]:
    """When each watched file last changed."""
    files: list[Path] = []
    for name in WATCHED:
        path = book.ROOT / name
        files += [path] if path.is_file() else path.rglob("*")
    return {path: path.stat().st_mtime for path in files if path.is_file() and "__pycache__" not in path.parts}


def make() -> None:
    global version
    if execute.main([]) == 0 and build.main() == 0:
        version += 1


def main() -> int:
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    before = state()
    make()
    handler = functools.partial(Handler, directory=str(build.SITE))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://localhost:{port}/book/intro.html  (Ctrl-C ends it)", flush=True)
    try:
        while True:
            time.sleep(0.7)
            now = state()
            if now != before:
                before = now
                make()
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
