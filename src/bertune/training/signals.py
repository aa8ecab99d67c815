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


class Asked(BaseException):
    """Raised inside `breakable`, where stopping at once does no harm. Never leaves the engine."""


class Interrupts:
    """Hears of the wish to stop, while `listening`.

    Attributes:
        number: the signal that came, SIGINT or SIGTERM; None while nobody wants to stop.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._breakable = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear signals while the block runs. Outside the main thread, where Python delivers none, it hears nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._hear) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _hear(self, number: int, _: FrameType | None) -> None:
        if self.number is not None and number == signal.SIGINT:
            raise KeyboardInterrupt  # the second one: leave at once; a checkpoint is whole or has no name, so none is harmed
        if self.number is None:
            self.number = number
            # A handler may run in the middle of a print, so this goes past Python's buffers.
            name = signal.Signals(number).name
            _write(f"\n{name}: the step is finished and a checkpoint is written first; Ctrl-C leaves at once\n")
        if self._breakable:
            self._breakable = False
            raise Asked

    @contextmanager
    def breakable(self) -> Iterator[None]:
        """Let a signal end the block by `Asked`, when one process works alone: several must stop at the same place."""
        if num_processes() > 1:
            yield
            return
        try:
            self._breakable = True
            if self.number is not None:
                raise Asked
            yield
        finally:
            self._breakable = False


def _write(text: str) -> None:
    try:
        os.write(sys.stderr.fileno(), text.encode())
    except (OSError, ValueError, AttributeError):  # no real stderr, as in a notebook
        return
