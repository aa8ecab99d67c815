"""The numbers of a search, and which is which."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass

from bertune.selection.trials import Study
from bertune.types import JSON, Scores


@dataclass(frozen=True)
class SearchNumbers:
    """What a search may claim, and what it may not.

    Attributes:
        study: all trials.
        num_dev_rows: rows of the dev set, which no trial has seen.
        scores: scores of the refit model by split; empty without one.
        dev_uses: how often the dev rows have scored a winner of this search.
        dev_decides: whether the dev rows chose thresholds of labels or a calibration.
    """

    study: Study
    num_dev_rows: int
    scores: Mapping[str, Scores]
    dev_uses: int = 1
    dev_decides: bool = False

    @property
    def metric(self) -> str:
        """The main metric."""
        return self.study.metric

    @property
    def own_score(self) -> float | None:
        """The score of trial 0, the run's own settings, on the rows of the search."""
        trials = self.study.trials
        return trials[0].score if trials and trials[0].number == 0 else None

    def lines(self) -> list[tuple[str, str, str]]:
        """Return each number with its name and what it is worth: (name, number, meaning)."""
        study, best = self.study, self.study.best
        _, scored = study.num_rows
        lines = []
        if best is not None and best.score is not None:
            meaning = (
                f"on {scored} training rows held out, where it was chosen as the best of "
                f"{len(study.trials)} trials: too good by the choice"
            )
            lines.append(("winner in the search", f"{best.score:.4f}", meaning))
        if self.own_score is not None:
            lines.append(("your settings there", f"{self.own_score:.4f}", "trial 0, the run as it was"))
        if study.optimistic_score is not None:
            meaning = (
                "the best of all evaluations of all trials on the rows that chose it: what a search claims "
                "that has no other rows"
            )
            lines.append(("a naive report", f"{study.optimistic_score:.4f}", meaning))
        for split, scores in self.scores.items():
            rows = f"the {self.num_dev_rows} dev rows" if split == "dev" else f"the {split} rows"
            uses = "once" if self.dev_uses == 1 else f"{self.dev_uses} times, for a winner each"
            meaning = f"on {rows}, which chose nothing and were used {uses}: the number to report"
            if split == "dev" and self.dev_decides:
                meaning = (
                    f"on {rows}, which were used {uses}, but chose the thresholds of labels or calibrated "
                    "them: a little too good; give data.test"
                )
            lines.append((f"winner on {split}", _with_interval(scores), meaning))
        return lines

    def text(self, width: int = 80) -> list[str]:
        """Return the numbers as lines of at most `width` characters."""
        lines = []
        for name, number, meaning in self.lines():
            head = f"{self.metric} {number.split()[0]}  "
            interval = number.partition(" ")[2]
            rest = f"{name}{f' {interval}' if interval else ''}: {meaning}"
            indent = " " * len(head)
            lines += textwrap.wrap(head + rest, width, subsequent_indent=indent, break_long_words=False)
        return lines

    def to_json(self) -> JSON:
        """Return the numbers as JSON values."""
        study, best = self.study, self.study.best
        train, scored = study.num_rows
        return {
            "metric": study.metric,
            "higher_is_better": study.higher_is_better,
            "rows": {"train": train, "held_out": scored, "dev": self.num_dev_rows},
            "trials": {state: study.count(state) for state in ("complete", "pruned", "failed", "running")},
            "best_trial": None if best is None else best.number,
            "search": None if best is None else best.score,
            "search_of_own_settings": self.own_score,
            "naive": study.optimistic_score,
            "dev_uses": self.dev_uses,
            "dev_chose_thresholds": self.dev_decides,
            "refit": {split: scores.to_json() for split, scores in self.scores.items()},
        }


def _with_interval(scores: Scores) -> str:
    bounds = scores.intervals.get(scores.main_metric)
    interval = f" (95 % interval {bounds[0]:.4f} to {bounds[1]:.4f})" if bounds else ""
    return f"{scores.main_value:.4f}{interval}"
