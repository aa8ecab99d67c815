"""Who hears what happens during training: history, trackers, progress bar, or an object of yours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bertune.types import JSON


@dataclass(frozen=True)
class Outcome:
    """What training came to."""

    steps: int
    best_step: int
    best_score: float | None
    train_seconds: float
    """Time of training alone: without evaluation, and without what was done before a resume."""
    rows: int
    tokens: int
    stopped_early: bool


class StopTraining(Exception):
    """A listener raises it to end training after this event, as early stopping does.

    Search for settings prunes a trial so.
    """


class Listener:
    """Hears the events of training. Every method does nothing here: override what you need.

    Records are flat dictionaries of plain numbers, with the `step` they belong to.
    """

    def on_start(self, step: int, total_steps: int, *, evaluated: bool = True) -> None:
        """Hear that training begins or goes on.

        Args:
            step: steps done before; 0 for a new run.
            total_steps: steps of the whole run.
            evaluated: whether everything that follows step `step` (evaluation, records) was done before the
                run stopped.
        """

    def on_step(self, step: int, total_steps: int) -> None:
        """Hear that a step is done."""

    def on_log(self, record: JSON) -> None:
        """Hear the figures of the steps since the last record: loss, learning rate, speed, time left."""

    def on_evaluate(self, record: JSON) -> None:
        """Hear the scores of an evaluation; `best` says whether they are the best so far."""

    def on_epoch(self, record: JSON) -> None:
        """Hear the mean loss of an epoch."""

    def on_warning(self, step: int, message: str) -> None:
        """Hear of a problem that training survives, such as short memory."""

    def on_end(self, outcome: Outcome) -> None:
        """Hear that training has come to its end; not called when it fails or is interrupted."""

    def close(self) -> None:
        """Release files and connections; called however training ends."""


class Listeners(Listener):
    """Several listeners as one; they hear each event in their order."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self.listeners = tuple(listeners)

    def on_start(self, step: int, total_steps: int, *, evaluated: bool = True) -> None:
        """Pass it on."""
        for listener in self.listeners:
            listener.on_start(step, total_steps, evaluated=evaluated)

    def on_step(self, step: int, total_steps: int) -> None:
        """Pass it on."""
        for listener in self.listeners:
            listener.on_step(step, total_steps)

    def on_log(self, record: JSON) -> None:
        """Pass it on."""
        for listener in self.listeners:
            listener.on_log(record)

    def on_evaluate(self, record: JSON) -> None:
        """Pass it on."""
        for listener in self.listeners:
            listener.on_evaluate(record)

    def on_epoch(self, record: JSON) -> None:
        """Pass it on."""
        for listener in self.listeners:
            listener.on_epoch(record)

    def on_warning(self, step: int, message: str) -> None:
        """Pass it on."""
        for listener in self.listeners:
            listener.on_warning(step, message)

    def on_end(self, outcome: Outcome) -> None:
        """Pass it on."""
        for listener in self.listeners:
            listener.on_end(outcome)

    def close(self) -> None:
        """Close all of them, also when one of them fails."""
        errors = []
        for listener in self.listeners:
            try:
                listener.close()
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]
