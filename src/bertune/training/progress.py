"""Training on the terminal: a bar, a line for each record, and a table of evaluations at the end."""

from __future__ import annotations

import math
from contextlib import ExitStack

from bertune.console import Console, duration
from bertune.training.history import History
from bertune.training.listener import Listener, Outcome
from bertune.types import JSON


class ConsoleProgress(Listener):
    """Shows the events of training.

    Args:
        console: where to.
        history: has the evaluations for the table, those before a restart included.
    """

    def __init__(self, console: Console, history: History) -> None:
        self._console, self._history = console, history
        self._bar = ExitStack()

    def on_start(self, step: int, total_steps: int, *, evaluated: bool = True) -> None:
        """Show the bar."""
        self._bar.enter_context(self._console.progress("training", total_steps))

    def on_step(self, step: int, total_steps: int) -> None:
        """Move the bar."""
        self._console.advance(step)

    def on_log(self, record: JSON) -> None:
        """Show loss, learning rate, speed and the time left."""
        self._console.info(
            f"step {record['step']:>5}  epoch {record['epoch']:5.2f}  loss {record['loss']:.4f}  lr "
            f"{record['learning_rate']:.2e}  "
            f"{record['rows_per_s']:.0f} rows/s  {record['tokens_per_s']:.0f} tokens/s  eta "
            f"{duration(record['eta_s'])}"
        )

    def on_evaluate(self, record: JSON) -> None:
        """Show the scores."""
        figures = "  ".join(
            f"{name} {value:.4f}"
            for name, value in record.items()
            if name not in {"step", "epoch", "train_loss", "dev_loss", "best"}
        )
        loss = (
            "" if math.isnan(record["dev_loss"]) else f"loss {record['dev_loss']:.4f}  "
        )  # some rows have scores but no loss
        self._console.info(
            f"dev at step {record['step']}  {loss}{figures}{'  (best so far)' if record['best'] else ''}"
        )

    def on_warning(self, step: int, message: str) -> None:
        """Show the warning."""
        self._console.warning(message)

    def on_end(self, outcome: Outcome) -> None:
        """Show a table with a row for each evaluation; `*` marks those that were the best so far."""
        self._bar.close()
        evaluations = self._history.evaluations
        if not evaluations:
            return
        hidden = {"step", "best"} | ({"dev_loss"} if math.isnan(evaluations[0]["dev_loss"]) else set())
        names = [name for name in evaluations[0] if name not in hidden]
        rows = [
            [
                f"{e['step']}{' *' if e['best'] else '  '}",
                *(f"{e[n]:.2f}" if n == "epoch" else f"{e[n]:.4f}" for n in names),
            ]
            for e in evaluations
        ]
        self._console.table(["step  ", *(name.replace("_", " ") for name in names)], rows)

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()
