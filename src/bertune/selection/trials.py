"""Trials of a search, and what it found: plain data that tables, files and plots are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

from bertune.types import JSON

TrialState = Literal["complete", "pruned", "failed", "running"]


@dataclass(frozen=True)
class Trial:
    """One trial: some settings, and what they came to on the rows held out."""

    number: int
    """From 0, in the order of their beginning."""
    settings: JSON
    """Value by full name, such as train.learning_rate."""
    state: TrialState
    score: float | None = None
    """The main metric after the last step, the mean over folds; None unless complete."""
    values: dict[str, float] = field(default_factory=dict)
    """All metrics after the last step."""
    evaluations: tuple[float, ...] = ()
    """The main metric at each evaluation so far."""
    seconds: float = 0.0
    steps: int = 0
    reason: str = ""
    """Why it failed, or where it was pruned."""

    def to_json(self) -> JSON:
        """Return the trial as JSON values, a line of trials.jsonl."""
        return {**asdict(self), "evaluations": list(self.evaluations)}


@dataclass(frozen=True)
class Study:
    """All trials of a search so far.

    Attributes:
        trials: by number.
        metric: the main metric.
        higher_is_better: whether more of it is better.
        num_rows: rows that the trials train on, and rows that score them.
        planned: how many trials there will be.
    """

    trials: tuple[Trial, ...]
    metric: str
    higher_is_better: bool
    num_rows: tuple[int, int]
    planned: int

    @property
    def complete(self) -> list[Trial]:
        """The trials that ran to their end."""
        return [trial for trial in self.trials if trial.state == "complete"]

    @property
    def best(self) -> Trial | None:
        """The best trial that ran to its end; of equal ones the first."""
        sign = 1 if self.higher_is_better else -1
        return max(
            self.complete, key=lambda trial: (sign * (trial.score or 0.0), -trial.number), default=None
        )

    @property
    def optimistic_score(self) -> float | None:
        """The best score of any trial at any evaluation: what a report on these rows would claim."""
        choose = max if self.higher_is_better else min
        scores = [score for trial in self.trials for score in trial.evaluations]
        return choose(scores, default=None)

    def count(self, state: TrialState) -> int:
        """Return the number of trials in a state."""
        return sum(trial.state == state for trial in self.trials)

    def best_so_far(self) -> Sequence[float | None]:
        """Return for each trial the best score of the trials up to it; None before the first one."""
        choose = max if self.higher_is_better else min
        best: list[float | None] = []
        for trial in self.trials:
            scores = [s for s in (best[-1] if best else None, trial.score) if s is not None]
            best.append(choose(scores, default=None))
        return best
