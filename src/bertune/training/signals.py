"""Ctrl-C and SIGTERM: finish the step, write a checkpoint, leave."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from bertune.distributed import num_processes


class StopRequested(BaseException):
    """Raised inside `interruptible`, where stopping at once does no harm.

    It never leaves the training room.
    """


class StopSignals:
    """Remembers the first SIGINT or SIGTERM while `installed`.

    Attributes:
        received: the signal, SIGINT or SIGTERM; None until one comes.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._interruptible = False

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Handle signals while the block runs.

        Outside the main thread, where Python delivers none, do nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            # the second Ctrl-C leaves at once: a checkpoint is whole or has no name, so none is harmed
            raise KeyboardInterrupt
        if self.received is None:
            self.received = number
            # A handler may run in the middle of a print, so this goes past Python's buffers.
            name = signal.Signals(number).name
            _write(
                f"\n{name}: the step is finished and a checkpoint is written first; Ctrl-C leaves at once\n"
            )
        if self._interruptible:
            self._interruptible = False
            raise StopRequested

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let a signal end the block by `StopRequested` in a single process.

        Several must stop at the same point.
        """
        if num_processes() > 1:
            yield
            return
        try:
            self._interruptible = True
            if self.received is not None:
                raise StopRequested
            yield
        finally:
            self._interruptible = False


def _write(text: str) -> None:
    try:
        os.write(sys.stderr.fileno(), text.encode())
    except (OSError, ValueError, AttributeError):  # no real stderr, as in a notebook
        return
