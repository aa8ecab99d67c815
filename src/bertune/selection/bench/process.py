"""A run of a bench in a process of its own: its memory is its own, and a crash of it ends nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from bertune.errors import Interrupted
from bertune.types import JSON

LOG_LINES = 3
"""Lines of the log that the message of a crash has."""


def run_process(module: str, job: JSON, log: Path) -> int:
    """Run a module in a new process, and wait for it.

    The job is sent through standard input, which stays open as long as this process lives: so the other one
    notices when this one is killed. An interrupt is handed on, so that training writes a checkpoint.

    Args:
        module: run as `python -m module`.
        job: JSON values that the module reads from standard input, in one line.
        log: the file that gets all it writes.

    Returns:
        The exit code; negative for a signal.

    Raises:
        KeyboardInterrupt: this process was interrupted; the other one has ended.
        OSError: the log cannot be written, or no process can be started.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603  (this Python, and a module of bertune)
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=environment(),
            start_new_session=os.name == "posix",  # Ctrl-C reaches this process alone, which hands it on
        )
        try:
            _send(process, job)
            return process.wait()
        except KeyboardInterrupt:
            _stop(process)
            raise
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            if process.stdin is not None:
                process.stdin.close()


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM raise `Interrupted` in the block, as Ctrl-C raises KeyboardInterrupt."""

    def interrupt(number: int, _: FrameType | None) -> None:
        raise Interrupted("stopped", number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def environment() -> dict[str, str]:
    """Return the environment of a run: this one, with the place that bertune was imported from.

    `python -m` looks for modules in the working folder first. Where this process does not look there, a run
    does not either: a file of the user's called random.py must not stand in the place of Python's.
    """
    import bertune

    place = str(Path(bertune.__file__).parent.parent)
    path = os.environ.get("PYTHONPATH", "")
    paths = [place, *path.split(os.pathsep)] if path else [place]
    safe = {} if {"", str(Path.cwd())} & set(sys.path) else {"PYTHONSAFEPATH": "1"}
    return {
        **os.environ,
        **safe,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
        "PYTHONUNBUFFERED": "1",
    }


def _send(process: subprocess.Popen[bytes], job: JSON) -> None:
    if process.stdin is None:
        return
    try:
        process.stdin.write(json.dumps(job).encode() + b"\n")
        process.stdin.flush()
    except BrokenPipeError:
        return  # it has ended already; its exit code says how


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, and wait; a second Ctrl-C kills it."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait()
    except KeyboardInterrupt:
        process.kill()
        process.wait()


def receive_job() -> JSON:
    """Return the job that `run_process` has sent; from now on this process ends when the other one dies."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)  # not sys.stdin, whose buffer would hold the pipe
        if not byte:
            raise SystemExit(f"{__name__}: is started by bertune bench")
        line += byte
    threading.Thread(target=_end_with_parent, daemon=True).start()
    job: JSON = json.loads(line)
    return job


def _end_with_parent() -> None:
    """Wait for the end of standard input, then end this process; training writes a checkpoint first."""
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)  # a step may take long; what comes later has no use any more
    os._exit(128 + signal.SIGTERM)


def crash_message(code: int, log: Path) -> str:
    """Say how a process ended that left no record.

    Args:
        code: its exit code.
        log: what it wrote.
    """
    lines = [line for line in last_lines(log) if line.strip()]
    said = f"; its last words: {' | '.join(lines[-LOG_LINES:])}" if lines else ""
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        memory = ", as the system does when memory runs out" if name == "SIGKILL" else ""
        return f"the process was ended by {name}{memory}{said}"
    return f"the process ended with exit code {code}{said}"


def last_lines(path: Path, size: int = 4000) -> list[str]:
    """Return the last lines of a file; none where it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - size))
            return file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []
