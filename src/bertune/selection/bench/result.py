"""What a bench came to: the spread of each set over its seeds, what it cost, and a score of the suite."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from bertune.selection.bench.plan import BenchPlan, BenchSet, Variant
from bertune.selection.bench.records import RunRecord
from bertune.selection.spread import Spread, spread_of_metrics, without_nan
from bertune.types import JSON

if TYPE_CHECKING:
    from bertune.selection.bench.versus import Versus

OVER_SEEDS = "over seeds (Student's t)"
OF_ROWS = "of rows (bootstrap, one seed)"
NO_INTERVAL = "none"


@dataclass(frozen=True)
class SplitScore:
    """The main metric of a set on one split.

    Attributes:
        split: dev or test.
        metric: the main metric.
        spread: over seeds.
        interval: 95 %; over seeds where there are two or more, else of the rows of the one seed.
        interval_kind: which of both, in words.
    """

    split: str
    metric: str
    higher_is_better: bool
    spread: Spread
    interval: tuple[float, float] | None
    interval_kind: str


@dataclass(frozen=True)
class SetResult:
    """A set with one model or settings: the records of its seeds.

    Attributes:
        records: by seed; only runs that have ended, well or not.
        seeds: all that were asked for.
    """

    data: BenchSet
    variant: Variant
    seeds: tuple[int, ...]
    records: dict[int, RunRecord] = field(repr=False)

    @property
    def done(self) -> dict[int, RunRecord]:
        """The records that have scores, by seed."""
        return {seed: record for seed, record in self.records.items() if record.is_done}

    @property
    def failed(self) -> dict[int, str]:
        """The message of each seed that failed."""
        return {seed: record.message for seed, record in self.records.items() if not record.is_done}

    def score(self, split: str = "dev") -> SplitScore | None:
        """Return the main metric of a split; None where no run has scored it."""
        scores = [record.scores[split] for record in self.done.values() if split in record.scores]
        if not scores:
            return None
        first = scores[0]
        spread = Spread.of([each.main_value for each in scores])
        interval, kind = spread.interval, OVER_SEEDS
        if len(scores) == 1:
            interval, kind = first.intervals.get(first.main_metric), OF_ROWS
        kind = kind if interval is not None else NO_INTERVAL
        return SplitScore(split, first.main_metric, first.higher_is_better, spread, interval, kind)

    @property
    def splits(self) -> list[str]:
        """The splits that have scores."""
        return [split for split in ("dev", "test") if self.score(split) is not None]

    @property
    def seconds(self) -> float:
        """Mean seconds of training of a run."""
        return _mean(record.train_seconds for record in self.done.values())

    @property
    def rows_per_s(self) -> float:
        """Mean rows a second in training."""
        return _mean(record.summary.get("rows_per_s", math.nan) for record in self.done.values())

    @property
    def memory_gb(self) -> float:
        """The largest peak of a run: of its process, or of the GPU where it trained on one."""
        peaks = [record.summary.get("peak_memory_gb", math.nan) for record in self.done.values()]
        return max((peak for peak in peaks if not math.isnan(peak)), default=math.nan)

    def to_json(self) -> JSON:
        """Return all numbers as JSON values."""
        done = self.done
        splits: JSON = {}
        for split in self.splits:
            score = self.score(split)
            values = [record.scores[split].values for record in done.values() if split in record.scores]
            spreads = {name: spread.to_json() for name, spread in spread_of_metrics(values).items()}
            if score is not None:
                splits[split] = {
                    "metric": score.metric,
                    "higher_is_better": score.higher_is_better,
                    "mean": score.spread.mean,
                    "interval_95": score.interval and list(score.interval),
                    "interval_kind": score.interval_kind,
                    "over_seeds": spreads,
                }
        return {
            **splits,
            "seconds": self.seconds,
            "rows_per_s": self.rows_per_s,
            "peak_memory_gb": self.memory_gb,
            "seeds": {str(seed): record.to_json() for seed, record in self.records.items()},
        }


def _mean(values: object) -> float:
    finite = [value for value in values if math.isfinite(value)]  # type: ignore[attr-defined]
    return fmean(finite) if finite else math.nan


@dataclass(frozen=True)
class SuiteScore:
    """The mean of the main metrics of sets, as GLUE's average, of those sets alone that have scores.

    Attributes:
        sets: which.
        spread: of the means of each seed; of the seeds that all of these sets have.
    """

    split: str
    sets: tuple[str, ...]
    metrics: tuple[str, ...]
    spread: Spread


@dataclass(frozen=True)
class BenchResult:
    """What a bench came to.

    Attributes:
        plan: what was asked for.
        results: by the names of set and variant.
        versus: comparisons of each pair of variants.
        commands: how it was called.
    """

    plan: BenchPlan
    results: dict[tuple[str, str], SetResult] = field(repr=False)
    versus: tuple[Versus, ...] = ()

    @property
    def folder(self) -> Path:
        """The folder of the bench."""
        return self.plan.out

    @property
    def failed(self) -> list[tuple[str, str]]:
        """Title and message of each run that failed."""
        return [
            (self.plan.run_of(result.data, result.variant, seed).title, message)
            for result in self.results.values()
            for seed, message in result.failed.items()
        ]

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """Name and reason of each set that cannot be run."""
        return [(data.name, data.why_not) for data in self.plan.sets if data.why_not]

    def of(self, variant: Variant) -> list[SetResult]:
        """Return the sets of a variant, in their order."""
        return [self.results[data.name, variant.name] for data in self.plan.runnable]

    def suite_score(self, variant: Variant, split: str = "dev") -> SuiteScore | None:
        """Return the mean over sets; None where fewer than two have a score of this split.

        Metrics of which less is better are left out: no mean has a meaning there.
        """
        scored = [
            (result, score)
            for result in self.of(variant)
            if (score := result.score(split)) is not None
            and score.higher_is_better
            and math.isfinite(score.spread.mean)
        ]
        if len(scored) < 2:
            return None
        seeds = [s for s in self.plan.seeds if all(s in result.done for result, _ in scored)]
        if not seeds:
            return None
        means = [fmean(result.done[s].scores[split].main_value for result, _ in scored) for s in seeds]
        names = tuple(result.data.name for result, _ in scored)
        return SuiteScore(split, names, tuple(score.metric for _, score in scored), Spread.of(means))

    @property
    def machines(self) -> list[JSON]:
        """On what the runs were computed; each kind once."""
        found: list[JSON] = []
        for result in self.results.values():
            for record in result.done.values():
                if record.machine and record.machine not in found:
                    found.append(record.machine)
        return found

    def to_json(self) -> JSON:
        """Return all numbers as JSON values, with null for what is no number."""
        sets: JSON = {}
        for data in self.plan.sets:
            models = {
                variant.name: self.results[data.name, variant.name].to_json()
                for variant in self.plan.variants
                if not data.why_not
            }
            sets[data.name] = {
                "why_not": data.why_not,
                "published": [figure.to_json() for figure in data.published],
                "settings": data.settings,
                "models": models,
            }
        values = {
            "suite": self.plan.suite,
            "seeds": list(self.plan.seeds),
            "models": {variant.name: list(variant.overrides) for variant in self.plan.variants},
            "suite_scores": self._suite_scores(),
            "sets": sets,
            "comparisons": [versus.to_json() for versus in self.versus],
            "failed": [{"run": title, "message": message} for title, message in self.failed],
            "machines": self.machines,
        }
        valid = without_nan(values)
        return valid if isinstance(valid, dict) else {}

    def _suite_scores(self) -> JSON:
        scores: JSON = {}
        for variant in self.plan.variants:
            for split in ("dev", "test"):
                score = self.suite_score(variant, split)
                if score is not None:
                    about = {"mean_of": list(score.sets), "metrics": list(score.metrics)}
                    scores.setdefault(variant.name, {})[split] = {**about, **score.spread.to_json()}
        return scores


def collect(plan: BenchPlan, records: dict[tuple[str, str, int], RunRecord]) -> BenchResult:
    """Return a result without comparisons.

    Args:
        plan: what was asked for.
        records: by the names of set and variant, and the seed.
    """
    results = {
        (data.name, variant.name): SetResult(
            data,
            variant,
            plan.seeds,
            {s: records[key] for s in plan.seeds if (key := (data.name, variant.name, s)) in records},
        )
        for data in plan.runnable
        for variant in plan.variants
    }
    return BenchResult(plan, results)


def seeds_text(seeds: Sequence[int]) -> str:
    """Write seeds.

    >>> seeds_text([1, 2]), seeds_text([7])
    ('seeds 1, 2', 'seed 7')
    """
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
