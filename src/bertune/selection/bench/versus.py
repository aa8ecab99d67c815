"""Two models, or two settings, over the sets and seeds of a bench: paired differences, and who is better."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

from bertune.inference.comparison import SIGNIFICANT, ComparedModel, PairComparison, compare_pairs
from bertune.inference.pairing import paired_rows
from bertune.metrics.paired import holm
from bertune.selection.bench.records import RunRecord
from bertune.selection.bench.result import BenchResult, SetResult
from bertune.selection.spread import Spread
from bertune.tasks.base.task import Task
from bertune.tasks.embed import Embed
from bertune.types import JSON, Example, Prediction

ReadDevRows = Callable[[SetResult, int], tuple[Task, Sequence[Example]]]
"""Returns a task that knows the labels, and the dev rows of a run of a seed."""
ReadPredictions = Callable[[SetResult, int], Sequence[Prediction]]


@dataclass(frozen=True)
class SetVersus:
    """Two models on one set; differences are `b` minus `a`.

    Attributes:
        seeds: those that both have finished on the same dev rows.
        a, b: the mean score of each, over these seeds.
        differences: by seed.
        spread: of the differences over seeds.
        rows: the paired bootstrap of dev rows, by seed; empty where rows cannot be compared.
        p_value: of no difference: over seeds by the paired t-test where there are two or more, else of rows.
        p_holm: corrected for all sets and pairs of the bench.
        why_not: why there is no test.
        better: the name of the better one; None where no difference is shown.
    """

    name: str
    metric: str
    higher_is_better: bool
    seeds: tuple[int, ...]
    a: float
    b: float
    differences: tuple[float, ...]
    spread: Spread | None
    rows: dict[int, PairComparison] = field(default_factory=dict, repr=False)
    p_value: float | None = None
    p_holm: float | None = None
    why_not: str = ""
    better: str | None = None

    @property
    def difference(self) -> float:
        """The mean difference over seeds."""
        return self.spread.mean if self.spread else math.nan

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 %: over seeds where there are two or more, else of the dev rows of the one seed."""
        if len(self.seeds) > 1:
            return self.spread.interval if self.spread else None
        return next((pair.main.interval for pair in self.rows.values()), None)

    @property
    def kind(self) -> str:
        """What the interval and the p-value are over."""
        return "seeds" if len(self.seeds) > 1 else "rows"

    def rows_won(self) -> tuple[int, int]:
        """Return on how many seeds the bootstrap of rows shows that `a` is better, and `b`."""
        names = [pair.better for pair in self.rows.values()]
        pairs = list(self.rows.values())
        if not pairs:
            return 0, 0
        return names.count(pairs[0].a), names.count(pairs[0].b)

    def to_json(self) -> JSON:
        """Return the comparison as JSON values."""
        return {
            "metric": self.metric,
            "seeds": list(self.seeds),
            "a": self.a,
            "b": self.b,
            "difference": self.difference,
            "differences": dict(zip(map(str, self.seeds), self.differences, strict=True)),
            "interval_95": self.interval and list(self.interval),
            "interval_over": self.kind,
            "p_value": self.p_value,
            "p_holm": self.p_holm,
            "better": self.better,
            "why_not": self.why_not,
            "rows": {str(seed): pair.to_json() for seed, pair in self.rows.items()},
        }


@dataclass(frozen=True)
class Versus:
    """Two models over all sets of a bench.

    Attributes:
        a, b: their names.
        sets: each set that both have run.
        overall: of the mean difference over sets, by seed; of metrics of which more is better.
        overall_sets: the sets of this mean.
    """

    a: str
    b: str
    sets: tuple[SetVersus, ...]
    overall: Spread | None = None
    overall_sets: tuple[str, ...] = ()

    def counts(self) -> tuple[int, int, int]:
        """Return on how many sets `b` is better, no difference is shown, and `a` is better."""
        names = [each.better for each in self.sets]
        return names.count(self.b), names.count(None), names.count(self.a)

    def to_json(self) -> JSON:
        """Return the comparison as JSON values."""
        wins, ties, losses = self.counts()
        return {
            "a": self.a,
            "b": self.b,
            "wins_of_b": wins,
            "no_difference_shown": ties,
            "wins_of_a": losses,
            "mean_difference": self.overall and self.overall.to_json(),
            "mean_over_sets": list(self.overall_sets),
            "sets": {each.name: each.to_json() for each in self.sets},
        }


def compare_variants(
    result: BenchResult,
    read_rows: ReadDevRows,
    read_predictions: ReadPredictions,
    note: Callable[[str], None],
) -> tuple[Versus, ...]:
    """Compare each pair of variants, set by set and over all of them.

    Args:
        result: of a bench.
        read_rows: reads the dev rows of a run.
        read_predictions: reads the predictions of a run.
        note: hears of what cannot be compared.
    """
    found = []
    for a, b in combinations(result.plan.variants, 2):
        sets = []
        for left, right in zip(result.of(a), result.of(b), strict=True):
            versus = _compare_set(left, right)
            if versus is None:
                note(f"compare: {left.data.name}: {a.name} and {b.name} have no seed in common that is done")
                continue
            if not versus.why_not:
                rows, reason = _compare_rows(left, right, versus.seeds, read_rows, read_predictions)
                versus = replace(versus, rows=rows)
                if reason:
                    note(f"compare: {left.data.name}: no test of dev rows: {reason}")
            sets.append(_with_p(versus))
        found.append(Versus(a.name, b.name, tuple(sets), *_overall(sets)))
    return _with_verdicts(found)


def _compare_set(left: SetResult, right: SetResult) -> SetVersus | None:
    """Return the differences of the seeds that both have; None where there are none."""
    a, b = left.done, right.done
    seeds = tuple(
        s for s in left.seeds if s in a and s in b and "dev" in a[s].scores and "dev" in b[s].scores
    )
    if not seeds:
        return None
    metric, higher = a[seeds[0]].scores["dev"].main_metric, a[seeds[0]].scores["dev"].higher_is_better
    why_not = ""
    if any(metric not in b[s].scores["dev"].values for s in seeds):
        other = b[seeds[0]].scores["dev"].main_metric
        return SetVersus(
            left.data.name, metric, higher, (), math.nan, math.nan, (), None, why_not=f"the other has {other}"
        )
    if any(_dev_hash(a[s]) != _dev_hash(b[s]) for s in seeds):
        why_not = "the dev rows differ"
    values_a, values_b = ([each[s].scores["dev"].values[metric] for s in seeds] for each in (a, b))
    differences = tuple(y - x for x, y in zip(values_a, values_b, strict=True))
    means = Spread.of(values_a).mean, Spread.of(values_b).mean
    return SetVersus(
        left.data.name, metric, higher, seeds, *means, differences, Spread.of(differences), why_not=why_not
    )


def _dev_hash(record: RunRecord) -> object:
    return record.data.get("dev")


def _compare_rows(
    left: SetResult,
    right: SetResult,
    seeds: Sequence[int],
    read_rows: ReadDevRows,
    read_predictions: ReadPredictions,
) -> tuple[dict[int, PairComparison], str]:
    """Return the paired bootstrap of dev rows of each seed, or why there is none."""
    pairs: dict[int, PairComparison] = {}
    for seed in seeds:
        task, examples = read_rows(left, seed)
        if isinstance(task, Embed) and task.evaluation_kind(examples) in {"search", "texts"}:
            return {}, "vectors are not kept"
        predictions = [read_predictions(side, seed) for side in (left, right)]
        if any(len(each) != len(examples) for each in predictions):
            return {}, "the dev file has changed since"
        scores = [side.done[seed].scores["dev"] for side in (left, right)]
        sides = zip((left, right), scores, strict=True)
        models = [ComparedModel(side.variant.name, "", each, 0) for side, each in sides]
        rows = paired_rows([task, task], scores[0].main_metric, predictions, examples)
        (pairs[seed],) = compare_pairs(models, rows)
    return pairs, ""


def _with_p(versus: SetVersus) -> SetVersus:
    """Return a comparison with its p-value, or why there is none."""
    if versus.why_not:
        return versus
    if len(versus.seeds) == 1:
        pair = versus.rows.get(versus.seeds[0])
        if pair is None or pair.main.p_value is None:
            return replace(versus, why_not="one seed, and no test of its dev rows")
        return replace(versus, p_value=pair.main.p_value)
    if not all(map(math.isfinite, versus.differences)):
        return replace(versus, why_not="a score is not a number")
    p_value = paired_t(versus.differences)
    if p_value is None:
        return replace(versus, why_not="the difference is the same for every seed")
    return replace(versus, p_value=p_value)


def paired_t(differences: Sequence[float]) -> float | None:
    """Return the p-value of the paired t-test, two-sided; None where differences do not vary, or one is none.

    1 where all are 0: nothing differs.

    Source: Student 1908, "The probable error of a mean"; as `scipy.stats.ttest_rel`.
    """
    if any(not math.isfinite(each) for each in differences):
        return None
    if all(abs(each) < 1e-12 for each in differences):
        return 1.0
    spread = Spread.of(differences)
    if len(differences) < 2 or spread.deviation < 1e-12:
        return None
    from scipy.special import stdtr

    t = spread.mean / (spread.deviation / math.sqrt(len(differences)))
    return float(2 * stdtr(len(differences) - 1, -abs(t)))


def _overall(sets: Sequence[SetVersus]) -> tuple[Spread | None, tuple[str, ...]]:
    """Return the spread over seeds of the mean difference over sets, and which sets these are."""
    usable = [each for each in sets if each.seeds and each.higher_is_better]
    if len(usable) < 2:
        return None, ()
    common = [seed for seed in usable[0].seeds if all(seed in each.seeds for each in usable)]
    if not common:
        return None, ()
    means = [sum(each.differences[each.seeds.index(s)] for each in usable) / len(usable) for s in common]
    return Spread.of(means), tuple(each.name for each in usable)


def _with_verdicts(found: Sequence[Versus]) -> tuple[Versus, ...]:
    """Correct the p-values for their number, over all sets and pairs, and name the better ones."""
    p_values = [each.p_value for versus in found for each in versus.sets if each.p_value is not None]
    corrected = iter(holm(p_values))
    judged = []
    for versus in found:
        sets = []
        for each in versus.sets:
            p_holm = None if each.p_value is None else next(corrected)
            better = None
            if p_holm is not None and p_holm < SIGNIFICANT and not math.isnan(each.difference):
                better = versus.b if (each.difference > 0) == each.higher_is_better else versus.a
            sets.append(replace(each, p_holm=p_holm, better=better))
        judged.append(replace(versus, sets=tuple(sets)))
    return tuple(judged)
