"""What goes wrong on people's machines: nothing is lost, nothing half-written is believed, and the message helps."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tools import chapters as book
from tools import command, execute

from .conftest import HEADER, cell

posix = pytest.mark.skipif(os.name == "nt", reason="signals and limits of POSIX")
SLOW = cell("import os, time\nprint(os.getpid())\nopen('../started', 'a').close()\ntime.sleep(60)")


def started(checkout, process):
    """Wait until the slow chapter's cell is at work; the process of its kernel."""
    for _ in range(600):
        if (checkout.root / "started").exists():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError("the chapter did not start")


def kernels_of(checkout):
    """The kernels that work in this checkout."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                folder = os.readlink(f"/proc/{entry}/cwd")
            except OSError:
                continue
            if folder.startswith(str(checkout.root / "notebooks")):
                found.append(int(entry))
    return found


def none_left(checkout, seconds=15):
    for _ in range(seconds * 10):
        if not kernels_of(checkout):
            return True
        time.sleep(0.1)
    return False


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")


@pytest.fixture
def slow(made):
    """A checkout with one chapter that has to run and takes a minute, and one that is done at once."""
    made.chapter(SLOW)
    made.chapter(cell("print(3)"), "02-second")
    yield made
    for pid in kernels_of(made) if sys.platform.startswith("linux") else []:
        os.kill(pid, signal.SIGKILL)


@linux
def test_kill_9_leaves_whole_notebooks_no_kernel_and_no_lock(slow):
    before = slow.notebook().read_bytes()
    process = slow.start("execute", start_new_session=True)
    started(slow, process)
    process.kill()
    process.wait()
    process.stdout.close()
    assert none_left(slow)
    assert slow.notebook().read_bytes() == before
    assert execute.stale(slow.root / "book" / "01-first.md")
    (slow.root / "started").unlink()
    slow.chapter(cell("print('short')"))
    assert slow.run("execute")[0] == 0


@linux
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_ends_all_kernels_and_keeps_what_is_finished(slow, times):
    process = slow.start("execute", "--jobs", "2", start_new_session=True)
    started(slow, process)
    for _ in range(200):
        if execute.stale(slow.root / "book" / "02-second.md") is None:
            break
        time.sleep(0.1)
    begin = time.monotonic()
    for _ in range(times):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.3)
    said, _ = process.communicate(timeout=30)
    assert time.monotonic() - begin < 15
    # A second Ctrl-C may meet a Python that is on its way out.
    assert process.returncode in (command.INTERRUPTED, -signal.SIGINT), said
    assert "1 of 2 chapters are left" in said
    assert "Traceback" not in said
    assert none_left(slow)
    assert execute.stale(slow.root / "book" / "02-second.md") is None


@pytest.mark.parametrize("times", [2, 3])
def test_a_kernel_whose_port_was_taken_meanwhile_is_started_again(made, monkeypatch, times):
    """Ports are chosen while they are free, and bound half a second later. Three starts, and no fourth."""
    takers = []

    class Late(execute.Kernel):
        async def _async_launch_kernel(self, *arguments, **options):
            if len(takers) < times:
                takers.append(socket.create_server((self.ip, self.shell_port)))
            return await super()._async_launch_kernel(*arguments, **options)

    monkeypatch.setattr(execute, "Kernel", Late)
    chapter = made.root / "book" / "01-first.md"

    def run():  # in a thread of its own: in this one a test of the pages may have left an event loop
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(lambda: asyncio.run(execute.run(chapter))).result()

    try:
        if times < 3:
            assert "one" in run()
        else:
            with pytest.raises(command.Failed, match="did not start"):
                run()
    finally:
        for taker in takers:
            taker.close()
    assert len(takers) == times


@posix
@pytest.mark.parametrize("tool", ["execute", "build"])
def test_a_full_disk_is_said_and_what_was_there_stays(made, tool):
    """A limit on the size of files stands in for the full disk: writing fails half-way in the same way."""
    if tool == "execute":
        made.chapter(cell("print('x' * 100_000)"))
    limited = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)); "
        f"from tools import command, {tool}; sys.exit(command.run({tool}.main))"
    )
    before = made.notebook().read_bytes()
    ran = subprocess.run(
        [sys.executable, "-c", limited], cwd=made.root, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert ran.returncode == 1, ran.stdout
    assert "Traceback" not in ran.stderr
    assert ("raise the limit" if tool == "execute" else "File too large") in ran.stderr
    assert made.notebook().read_bytes() == before
    assert not [name for name in made.listed() if name.endswith(".tmp")]
    assert made.run(tool)[0] == 0  # with room again, all is well


@pytest.mark.parametrize("code", ["ENOSPC", "EROFS", "EACCES", "EADDRINUSE"])
def test_what_the_system_refuses_is_explained(code, capsys):
    import errno

    def refused():
        raise OSError(getattr(errno, code), "refused", "notebooks/a.ipynb")

    assert command.run(refused) == 1
    said = capsys.readouterr().err
    assert "notebooks/a.ipynb: refused." in said
    assert command.REMEDIES[getattr(errno, code)] in said


@linux
def test_a_read_only_checkout_is_said(made):
    """As a user who may not write; root may, so the folder is mounted read-only there."""
    if os.geteuid() == 0:
        mount = f"mount --bind '{made.root}' '{made.root}' && mount -o remount,ro,bind '{made.root}'"
        prefix = ["unshare", "-m", "sh", "-c", f"{mount} && cd '{made.root}' && exec \"$@\"", "sh"]
        if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
            pytest.skip("nothing can be mounted here")
    else:
        prefix = []
        for folder in (made.root, made.root / "notebooks"):
            folder.chmod(0o555)
    made_again = [*prefix, sys.executable, "-B", "-m", "tools.execute"]
    shutil.rmtree(made.root / "_build", ignore_errors=True)
    for arguments, status in ((["--check"], 0), (["--all"], 1)):
        ran = subprocess.run(
            [*made_again, *arguments], cwd=made.root, capture_output=True, text=True, encoding="utf-8", check=False
        )
        assert ran.returncode == status, ran.stderr
        assert "Traceback" not in ran.stderr
    assert "Nothing can be written there" in ran.stderr


@linux
def test_of_two_at_once_the_second_waits(slow):
    process = slow.start("execute", "01", start_new_session=True)
    started(slow, process)
    second = slow.start("execute", "02", start_new_session=True)
    assert "waiting for it" in second.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=30)
    said, _ = second.communicate(timeout=60)
    assert second.returncode == 0, said


def test_a_clock_that_is_ahead_or_behind_changes_nothing(made):
    for path in (made.root / "book").rglob("*.md"):
        os.utime(path, (2_100_000_000, 2_100_000_000))
    os.utime(made.notebook(), (1_000_000_000, 1_000_000_000))
    assert made.run("execute", "--check")[0] == 0
    text = book.read_text(made.root / "book" / "01-first.md")
    chapter = made.write("book/01-first.md", text.replace("Some words", "Other words"))
    os.utime(chapter, (1_000_000_000, 1_000_000_000))
    assert execute.stale(chapter) == "its text changed"


def test_branches_that_both_changed_a_chapters_code_settle_by_executing(made):
    def git(*words):
        command = ["git", "-c", "user.name=n", "-c", "user.email=e", *words]
        return subprocess.run(command, cwd=made.root, capture_output=True, text=True, encoding="utf-8", check=False)

    def commit(text, name):
        made.chapter(text)
        assert made.run("execute", "01")[0] == 0
        git("add", "book", "notebooks")
        git("commit", "-q", "-m", name)

    lines = [cell(f"print({k})") + "\nWords.\n" for k in range(4)]
    git("init", "-q", "-b", "main")
    commit("\n".join(lines), "one")
    git("checkout", "-q", "-b", "other")
    commit("\n".join([*lines[:3], cell("print(33)")]), "two")
    git("checkout", "-q", "main")
    commit("\n".join([cell("print(11)") + "\nWords.\n", *lines[1:]]), "three")
    assert git("merge", "other").returncode != 0  # the notebook's hashes
    assert "<<<<<<<" in made.notebook().read_text(encoding="utf-8")
    assert "<<<<<<<" not in book.read_text(made.root / "book" / "01-first.md")
    status, said = made.run("execute")
    assert status == 0, said
    printed = book.printed(book.read_notebook(made.notebook()))
    assert printed.split() == ["11", "1", "2", "33"]
    assert made.listed() == ["01-first.ipynb", "02-second.ipynb"]


SLIPS = {
    "a glue format": (
        cell("from IPython.display import publish_display_data\n"
             "publish_display_data({'application/papermill.record/text/plain': '0.5'},"
             " {'scrapbook': {'name': 'r', 'mime_prefix': 'application/papermill.record/'}})")
        + "\nIt is {glue:text}`r:.q2f`.\n", ("01-first", "r:.q2f")),
    "a glue name": ("It is {glue:text}`nothing`.\n\n" + cell("1"), ("01-first", "nothing")),
    "a citation": ("As {cite:t}`nobody1999` says.\n\n" + cell("1"), ("01-first", "nobody1999")),
    "a cell's options": ("```{code-cell} ipython3\n---\na: b: c\n---\nprint(1)\n```\n", ("01-first",)),
    "a name in a cell": (cell("x = 0") + "\n" + cell("1 / x"), ("01-first.md", "code cell 2", "1 / x", "ZeroDivision")),
}  # fmt: skip


@pytest.mark.parametrize(("text", "parts"), SLIPS.values(), ids=SLIPS)
def test_an_authors_slip_is_named_and_the_old_notebook_stays(made, text, parts):
    before = made.notebook().read_bytes()
    made.chapter(text)
    status, said = made.run("execute")
    assert status == 1
    for part in parts:
        assert part in said
    assert "tools/" not in said  # no trace of ours
    assert made.notebook().read_bytes() == before


FILES = {
    "a byte of Latin-1": (b"\xfcber", "line 15 has a byte (0xfc) that is not UTF-8"),
    "a header that is no YAML": (None, "is not YAML"),
    "a header that makes it no chapter": (b"", "does not say that it is a MyST notebook"),
}


@pytest.mark.parametrize(("content", "message"), FILES.values(), ids=FILES)
@pytest.mark.parametrize("tool", ["execute", "build"])
def test_a_page_that_cannot_be_read_is_named(made, tool, content, message):
    text = (HEADER + "Words.\n\n").encode() + (content or b"") + b"\n" + cell("print(1)").encode()
    if content is None:
        text = text.replace(b"kernelspec:", b"kernelspec: [")
    if content == b"":
        text = text.replace(b"format_name: myst", b"format_name: mist")
    (made.root / "book" / "01-first.md").write_bytes(text)
    status, said = made.run(tool)
    assert status == 1
    assert "01-first.md" in said
    assert message in said


def test_a_stale_notebook_stops_the_rendering(made):
    made.chapter(cell("print('new')"))
    status, said = made.run("build")
    assert status == 1
    assert "01-first.ipynb: its code" in said
    assert "make execute" in said


def test_a_configuration_that_is_no_yaml_is_said(made):
    made.write("_config.yml", "title: [")
    status, said = made.run("build")
    assert status == 1
    assert "_config.yml" in said


def test_a_taken_port_is_said_at_once(made):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        status, said = made.run("serve", str(other.getsockname()[1]))
    assert status == 1
    assert "make serve PORT=" in said


def test_no_mistake_of_an_authors_ends_the_preview(made):
    """A word, two slips, and the word again: the page follows, and the server lives."""
    import urllib.request

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    page = made.root / "_build" / "html" / "book" / "01-first.html"
    good = book.read_text(made.root / "book" / "01-first.md")
    process = made.start("serve", str(port))

    def until(condition, what):
        for _ in range(600):
            if condition():
                return
            assert process.poll() is None, process.communicate()
            time.sleep(0.1)
        raise AssertionError(what)

    def shows(word):
        return page.exists() and word in page.read_text(encoding="utf-8")

    def answers():
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{port}/book/01-first.html", timeout=5).status == 200
        except OSError:
            return False

    try:
        until(answers, "no server")
        for slip in (good.replace("Some words", "{glue:text}`no:.q`"), good.replace("kernelspec:", "kernelspec: [")):
            made.write("book/01-first.md", slip)
            time.sleep(2)
            assert process.poll() is None
        made.write("book/01-first.md", good.replace("Some words", "Mended words"))
        until(lambda: shows("Mended words"), "the page did not follow")
        assert answers()
    finally:
        process.send_signal(signal.SIGINT if os.name != "nt" else signal.SIGTERM)
        try:
            process.communicate(timeout=20)
        finally:
            process.kill()  # nothing of a failed test goes on
