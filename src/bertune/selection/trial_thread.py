"""A trial that goes on from one evaluation to the next when it is asked to, as Ray Tune needs it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

import torch

from bertune.selection.trial_run import Report, TrialResult


class _Stopped(BaseException):
    """Ends a trial from within; no part of training takes it for an error of its own."""


class SteppedTrial:
    """A trial in a thread, which waits at each evaluation until it is told to go on or to stop.

    Training is a loop that reports; Ray Tune asks for one result after the other. The thread joins the two.

    Args:
        run: runs the trial, and reports its evaluations.
        num_threads: threads of torch that the trial may use.
    """

    def __init__(self, run: Callable[[Report], TrialResult], num_threads: int) -> None:
        self._run, self._num_threads = run, num_threads
        self._events: queue.SimpleQueue[float | TrialResult | BaseException] = queue.SimpleQueue()
        self._goes_on: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._main, name="trial", daemon=True)

    def next(self) -> float | TrialResult:
        """Train up to the next evaluation.

        Returns:
            Its score; or, after the last step, what the trial came to.

        Raises:
            Exception: what the trial has raised.
        """
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._goes_on.put(True)
        event = self._events.get()
        if isinstance(event, BaseException):
            raise event
        return event

    def stop(self) -> None:
        """End the trial where it waits, and free its memory. A trial that has ended stays as it is."""
        if self._thread.is_alive():
            self._goes_on.put(False)
            self._thread.join()

    def _main(self) -> None:
        torch.set_num_threads(self._num_threads)  # counts for the thread that says it
        try:
            self._events.put(self._run(self._report))
        except _Stopped:
            pass
        except BaseException as error:
            self._events.put(error)

    def _report(self, number: int, score: float) -> bool:
        self._events.put(score)
        if not self._goes_on.get():
            raise _Stopped
        return False
