"""Trials as words: short names of settings, values and scores, for tables, files and plots alike."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

from bertune.selection.space import SearchSpace
from bertune.selection.trials import Study, Trial

STATES = ("complete", "pruned", "failed", "running")
NOTHING = "-"


def setting_names(study: Study, space: SearchSpace) -> list[str]:
    """Return the full names of all settings: those that are searched, then others that trials have."""
    searched = [dimension.name for dimension in space.dimensions]
    others = [name for trial in study.trials for name in trial.settings]
    return list(dict.fromkeys([*searched, *others]))


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Return for each full name its last part; where two have the same one, their full names.

    >>> short_names(["train.learning_rate", "options.dropout", "train.dropout"])
    {'train.learning_rate': 'learning_rate', 'options.dropout': 'options.dropout', 'train.dropout':
    'train.dropout'}
    """
    names = list(dict.fromkeys(names))
    count = Counter(name.rsplit(".", 1)[-1] for name in names)
    last = {name: name.rsplit(".", 1)[-1] for name in names}
    return {name: last[name] if count[last[name]] == 1 else name for name in names}


def value_text(value: Any) -> str:
    """Write a value to read: numbers with four digits, lists and mappings as JSON, on one line.

    >>> [value_text(v) for v in (2.13456e-5, 16, True, None, "focal", [1, "好"], 0.1)]
    ['2.135e-5', '16', 'true', 'null', 'focal', '[1, "好"]', '0.1']
    """
    if isinstance(value, float) and math.isfinite(value):
        return _short_exponent(f"{value:.4g}")
    return exact_text(value)


def exact_text(value: Any) -> str:
    r"""Write a value as a run file has it, on one line.

    >>> print(exact_text(2.1345678e-05), exact_text("a\n\x1b[31m"))
    2.1345678e-5 a\n\x1b[31m
    """
    if isinstance(value, float):
        return _short_exponent(repr(value))
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return printable(text)


def printable(text: str) -> str:
    """Return a text with what no terminal prints written as an escape: line ends, colours, surrogates."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _short_exponent(text: str) -> str:
    return text.replace("e-0", "e-").replace("e+0", "e+")


def score_text(score: float | None) -> str:
    """Write a score with four decimals, large ones with five digits.

    >>> score_text(0.51239), score_text(None), score_text(float("nan")), score_text(123456.7)
    ('0.5124', '-', '-', '1.2346e+5')
    """
    if score is None or not math.isfinite(score):
        return NOTHING
    return f"{score:.4f}" if abs(score) < 1000 else _short_exponent(f"{score:.5g}")


def is_number(score: float | None) -> bool:
    """Tell whether a score is there and finite."""
    return score is not None and math.isfinite(score)


def last_score(trial: Trial) -> float | None:
    """Return the score of a trial, or of its last evaluation so far."""
    return trial.score if trial.score is not None else (trial.evaluations or (None,))[-1]


def by_score(study: Study) -> list[Trial]:
    """Return all trials, best first: complete ones by score, then pruned, running, failed ones."""
    sign = -1 if study.higher_is_better else 1
    order = {"complete": 0, "pruned": 1, "running": 2, "failed": 3}

    def place(trial: Trial) -> tuple[int, float, int]:
        score = trial.score
        if trial.state != "complete":
            return order[trial.state], 0.0, trial.number
        return 0, sign * score if score is not None and math.isfinite(score) else math.inf, trial.number

    return sorted(study.trials, key=place)


def states_text(study: Study) -> str:
    """Count the states of a study's trials, in words.

    >>> states_text(Study((), "mcc", True, (80, 20), 5))
    'no trials'
    """
    counts = [(study.count(state), state) for state in STATES]  # type: ignore[arg-type]
    return ", ".join(f"{count} {state}" for count, state in counts if count) or "no trials"


def span_text(seconds: float) -> str:
    """Write a time span in at most seven characters.

    >>> [span_text(s) for s in (4.25, 61, 3725, 100000)]
    ['4.2s', '1m01s', '1h02m', '27h46m']
    """
    if not seconds < 60:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes // 60}h{minutes % 60:02d}m" if minutes >= 60 else f"{minutes}m{rest:02d}s"
    return f"{seconds:.1f}s"
