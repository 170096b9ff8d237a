"""Contract under test: an answer that does harm is contained, with the reason in its grade.

The host process lives on, no process is left over, nothing outside the answer's folder changes,
and no secret is in what the answer could print. Each isolation of this machine takes all of them.
"""

from __future__ import annotations

import os
import socket
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from exhausting_answers import EXHAUSTING
from hostile_answer import HostileAnswer
from subverting_answers import SUBVERTING
from trespassing_answers import TRESPASSING

from layercast.grading.code import CodeTest, CodeTests, grade_code
from layercast.grading.sandbox import Limits, Program, Sandbox, attempt, commands, run

LIMITS = Limits(cpu_seconds=2, wall_seconds=6.0)
EXPECTED = "the expected answer"
SECRET = "hunter2-of-the-host"

# Where the system permits none, programs are refused (see test_isolation) and nothing is run here.
ISOLATED = [name for name in ("bubblewrap", "namespaces") if attempt(name).works]

# Root's sandbox runs the program as another user, everyone else's as themselves. Run by root the
# tests take both ways; two of the four ways are enough for every change.
_WAYS = [(name, privileged) for name in ISOLATED for privileged in (True, False)]
_OFTEN = [("bubblewrap", True), ("namespaces", False)]
WAYS = [
    pytest.param(
        *way,
        id=f"{way[0]}-{'as-is' if way[1] else 'unprivileged'}",
        marks=() if way in _OFTEN else pytest.mark.slow,
    )
    for way in _WAYS
]


@pytest.fixture
def service() -> Iterator[int]:
    """Serve a secret on this machine's loopback; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        done = threading.Event()

        def serve() -> None:
            while not done.is_set():
                try:
                    there, _ = server.accept()
                except TimeoutError:
                    continue
                with there:
                    there.sendall(SECRET.encode())

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        done.set()
        thread.join()


@pytest.mark.parametrize(("isolation", "privileged"), WAYS)
@pytest.mark.parametrize(
    "hostile", [*EXHAUSTING, *TRESPASSING, *SUBVERTING], ids=lambda hostile: hostile.name
)
def test_hostile_answer_is_contained(
    hostile: HostileAnswer,
    isolation: str,
    privileged: bool,
    service: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not privileged:
        monkeypatch.setattr(commands, "_may_change_user", lambda: False)
    monkeypatch.setenv("LAYERCAST_TEST_SECRET", SECRET)
    secret_file, elsewhere = tmp_path / "secret", tmp_path / "elsewhere"
    secret_file.write_text(SECRET)
    source = textwrap.dedent(hostile.source).format(
        elsewhere=elsewhere,
        secret_file=secret_file,
        port=service,
        host=os.getpid(),
        expected=EXPECTED,
    )
    sandbox = Sandbox(isolation, LIMITS)
    tests = CodeTests((CodeTest("", EXPECTED + "\n"),))

    grade = grade_code(f"```python\n{source}\n```", tests, sandbox)

    assert not grade.correct
    assert grade.reason.startswith(hostile.reasons), grade.reason
    assert SECRET not in grade.reason
    assert not elsewhere.exists()
    assert _processes_running(source) == []
    if hostile.reads:
        outcome = run(Program(source), sandbox)
        assert SECRET not in outcome.stdout + outcome.stderr
    # And the next answer is graded as if nothing had been.
    fine = grade_code(f"```python\nprint({EXPECTED!r})\n```", tests, sandbox)
    assert fine.correct, fine.reason


@pytest.mark.parametrize("isolation", ISOLATED)
def test_a_file_left_behind_is_not_there_for_the_next_program(isolation: str) -> None:
    sandbox = Sandbox(isolation, LIMITS)
    run(Program("open('left', 'w').write('x')"), sandbox)
    outcome = run(Program("import os; print(sorted(os.listdir('.')))"), sandbox)
    assert outcome.stdout == "['solution.py']\n"


@pytest.mark.skipif("namespaces" not in ISOLATED, reason="this machine permits no namespaces")
def test_number_of_files_is_bounded_by_namespaces() -> None:
    """Of bubblewrap it is not, so that `auto` prefers namespaces."""
    source = "for number in range(5000):\n    open(str(number), 'w').close()"
    outcome = run(Program(source), Sandbox("namespaces", LIMITS))
    assert outcome.containment == "disk limit"


@pytest.mark.parametrize("isolation", ISOLATED)
def test_sandbox_works_off_the_main_thread(isolation: str) -> None:
    outcomes = []
    thread = threading.Thread(
        target=lambda: outcomes.append(run(Program("print(2)"), Sandbox(isolation, LIMITS)))
    )
    thread.start()
    thread.join()
    assert outcomes[0].stdout == "2\n"


def test_program_that_ends_its_supervisor_is_contained_and_ends_no_run() -> None:
    """In reach only where there are limits alone; the kernel may do it for want of memory."""
    source = "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)"
    tests = CodeTests((CodeTest("", EXPECTED),))
    grade = grade_code(f"```python\n{source}\n```", tests, Sandbox("none", LIMITS))
    assert grade.reason == "contained: sandbox ended (test 1 of 1)"


def test_without_isolation_the_secrets_would_be_read(tmp_path: Path) -> None:
    """The control: the same program reads the file where there are limits alone."""
    (tmp_path / "secret").write_text(SECRET)
    source = f"print(open('{tmp_path / 'secret'}').read())"
    assert SECRET in run(Program(source), Sandbox("none", LIMITS)).stdout


@pytest.mark.parametrize("isolation", ISOLATED)
def test_ordinary_libraries_work_within_the_filter(isolation: str) -> None:
    source = """
    import asyncio, ctypes, multiprocessing, resource, socket, subprocess, threading, numpy
    here, there = socket.socketpair()
    here.send(b"a")
    thread = threading.Thread(target=lambda: None)
    thread.start(); thread.join()
    async def two(): return 2
    process = multiprocessing.get_context("fork").Process(target=lambda: None)
    process.start(); process.join()
    assert subprocess.run(["/bin/true"]).returncode == 0
    assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
    assert ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda x: x + 1)(1) == 2
    print(there.recv(1), asyncio.run(two()), numpy.linalg.det(numpy.eye(3)), process.exitcode)
    """
    outcome = run(Program(textwrap.dedent(source)), Sandbox(isolation, LIMITS))
    assert outcome.stdout == "b'a' 2 1.0 0\n", outcome.stderr


def _processes_running(source: str) -> list[int]:
    """Return processes outside this one whose command line is the sandbox's."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if b"solution.py" in command and parent in (1, os.getpid()):
            found.append(int(folder.name))
    return found
