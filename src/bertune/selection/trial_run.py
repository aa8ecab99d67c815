"""Runs the trials of a search: the same rows for all of them, read and tokenized once."""

from __future__ import annotations

import copy
import json
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from bertune.artifact.base_model import take_over
from bertune.config.auto_rates import take_settled
from bertune.config.load import resolve_config
from bertune.config.schema import RunConfig
from bertune.config.tuning import TuneConfig
from bertune.console import Console
from bertune.data.dataset import EncodedDataset
from bertune.data.example_store import take
from bertune.data.rows import resolve_files
from bertune.data.split import LabelledRows
from bertune.errors import BertuneError, ConfigError, DataError
from bertune.selection.fit import Fit, fit
from bertune.selection.request import divide
from bertune.selection.space import apply_settings
from bertune.selection.trials import TrialState
from bertune.tasks.base.datasets import encode_datasets, read_datasets
from bertune.tasks.base.groups import read_groups
from bertune.tasks.base.reading import Splits
from bertune.tasks.base.splitting import draw_limit, mask_of_train
from bertune.tasks.base.task import Note, Task
from bertune.text.tokenizer import Tokenizer
from bertune.training.auto_settings import expected_settings, num_steps
from bertune.training.listener import Listener, StopTraining
from bertune.training.oom import is_out_of_memory
from bertune.types import JSON, Example, Scores

MOST_ENCODED = 4
"""Token sets that are kept: each model, longest text and fold has its own."""

Report = Callable[[int, float], bool]
"""Called with the number of an evaluation, from 1, and its score; says whether the trial is to be pruned."""


@dataclass
class TrialResult:
    """What a trial came to."""

    state: TrialState
    evaluations: list[float] = field(default_factory=list)
    """The main metric at each evaluation; with folds, those of one fold after the other."""
    score: float | None = None
    values: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    steps: int = 0
    reason: str = ""
    fit: Fit | None = None
    """The model, where one set of rows was held out, not folds."""


@dataclass(frozen=True)
class HeldOut:
    """The training rows as the trials see them: which of them train, and which score.

    Attributes:
        train: for each part the numbers of the rows that train.
        dev: for each part the numbers of the rows that score; one part, or one a fold.
    """

    train: tuple[np.ndarray, ...]
    dev: tuple[np.ndarray, ...]

    @property
    def num_rows(self) -> tuple[int, int]:
        """How many rows train, and how many score, in the first part."""
        return len(self.train[0]), len(self.dev[0])


class _Reporter(Listener):
    """Hands scores on, and ends a trial that is to be pruned, or whose time is over."""

    def __init__(
        self,
        result: TrialResult,
        report: Report,
        deadline: float | None,
        learn: Callable[[Scores, int], None],
    ) -> None:
        self._result, self._report, self._deadline = result, report, deadline
        self._learn = learn
        self.ended: TrialState | None = None

    def on_step(self, step: int, total_steps: int) -> None:
        """End the trial when the time of the search is over."""
        if self._deadline is not None and time.monotonic() > self._deadline and step < total_steps:
            self.ended, self._result.reason = "pruned", f"the time of the search was over at step {step}"
            raise StopTraining

    def on_warning(self, step: int, message: str) -> None:
        """Keep what the trial survived."""
        self._result.reason = self._result.reason or f"step {step}: {message}"

    def on_scores(self, scores: Scores, step: int, total_steps: int) -> None:
        """Hand the scores of an evaluation on."""
        if self.ended is not None:
            return
        self._learn(scores, self._result.steps + step)
        evaluations = self._result.evaluations
        evaluations.append(scores.main_value)
        if self._report(len(evaluations), scores.main_value) and step < total_steps:
            self.ended, self._result.reason = "pruned", f"worse than others at step {step} of {total_steps}"
            raise StopTraining


class TrialRunner:
    """Runs trials on rows that are read once.

    Args:
        raw: the settings of the run, as `read_config` returns them, without `tune` and `search`.
        task_class: its task.
        tune: how settings are searched.
        note: called with each line that a user should see about the rows.

    Raises:
        BertuneError: settings or rows cannot be used.
    """

    def __init__(self, raw: JSON, task_class: type[Task], tune: TuneConfig, note: Note) -> None:
        self._raw, self._task_class, self.tune = raw, task_class, tune
        self.run, self.task = self._resolve(raw, note)
        self.splits = read_datasets(self.run, self.task, _NoteConsole(note))
        self.metric = ""
        """The main metric; known after the first evaluation."""
        self.higher_is_better = True
        self.num_steps = (0, 0)
        """Steps of the trial that runs, all folds together: those done at its last evaluation, and all."""
        self._rows: Sequence[Example] = self.splits.train
        if tune.limit is not None:
            count = tune.limit if isinstance(tune.limit, int) else round(tune.limit * len(self._rows))
            self._rows = draw_limit(self._rows, self.task, max(count, 2), self.run.seed, _renamed(note))
        self.held_out = self._hold_out(note)
        self.run = expected_settings(self.run, self.task, len(self.held_out.train[0]))
        self._variants: OrderedDict[str, tuple[Task, Sequence[Example]]] = OrderedDict()
        self._encoded: OrderedDict[str, dict[str, EncodedDataset]] = OrderedDict()

    def __getstate__(self) -> JSON:
        """Return what another process needs to run trials: no tokens, and only the rows of the search."""
        splits = Splits([], [])
        return {**vars(self), "splits": splits, "_variants": OrderedDict(), "_encoded": OrderedDict()}

    def _resolve(self, raw: JSON, note: Note = lambda _: None) -> tuple[RunConfig, Task]:
        run, options = resolve_config(raw, self._task_class.Options)
        task = self._task_class(options, run.data)
        return take_over(run, task, note), task

    def _hold_out(self, note: Note) -> HeldOut:
        """Divide the rows of the search, by label, equal texts together."""
        held_out = self._divide() if self.tune.folds or self.tune.group else self._split_off()
        train, scored = held_out.num_rows
        folds = f", {self.tune.folds} times" if self.tune.folds else ""
        num_dev = len(self.splits.dev)
        dev = f"; the {num_dev} dev rows are not looked at" if num_dev else ""
        note(
            f"the search trains on {train} and scores on {scored} of {len(self.splits.train)} "
            f"training rows{folds}{dev}"
        )
        return held_out

    def _divide(self) -> HeldOut:
        """Hold out each fold in turn; where there are groups but no folds, one part of that size."""
        rows, tune = self._rows, self.tune
        num_folds = tune.folds or max(2, round(1 / tune.holdout))
        try:
            groups = None
            if tune.group is not None:
                files = resolve_files(self.run.data.train or [], "train")
                blank = self._resolve(self._raw)[1]
                groups = read_groups(files, blank, self.run.data, tune.group, rows)
            folds = divide(rows, self.task, num_folds, groups, self.run.seed, lambda _: None)
        except (ConfigError, DataError) as error:
            text = str(error).replace("--folds", "tune.folds").replace("--group", "tune.group")
            raise type(error)(text) from None
        parts = range(num_folds) if tune.folds else [0]
        return HeldOut(
            tuple(np.flatnonzero(folds != part) for part in parts),
            tuple(np.flatnonzero(folds == part) for part in parts),
        )

    def _split_off(self) -> HeldOut:
        rows, holdout = self._rows, self.tune.holdout
        if len(rows) < 2:
            raise DataError(f"{rows[0].location.source}: one row cannot both train and score a trial")
        labelled = LabelledRows(self.task.stratify_key(example) for example in rows)
        is_train = mask_of_train(rows, labelled, holdout, self.run.seed)
        train, scored = np.flatnonzero(is_train), np.flatnonzero(~is_train)
        try:
            if not len(train):
                raise DataError("all rows have the same text")
            self.task.check_scorable(take(rows, scored))
        except DataError as error:
            raise DataError(
                f"the {len(scored)} of {len(rows)} training rows held out to score the trials "
                f"(tune.holdout={holdout:g}) do not do: {error}; hold out more, or give more rows "
                "(tune.limit)"
            ) from None
        return HeldOut((train,), (scored,))

    def run_trial(
        self, settings: JSON, report: Report = lambda *_: False, deadline: float | None = None
    ) -> TrialResult:
        """Run one trial. What goes wrong with it is its result, not the end of the search.

        Args:
            settings: value by full name, put into the run's own settings.
            report: hears each score, and says whether to prune.
            deadline: the time, by `time.monotonic`, at which the search is over.
        """
        result = TrialResult("complete")
        began = time.perf_counter()
        try:
            self._run_parts(settings, result, report, deadline)
        except (BertuneError, MemoryError, RuntimeError) as error:
            if not isinstance(error, BertuneError) and not is_out_of_memory(error):
                raise
            out_of_memory = "" if isinstance(error, BertuneError) else "out of memory: "
            result.state, result.reason = "failed", f"{out_of_memory}{str(error).splitlines()[0]}"
        result.seconds = time.perf_counter() - began
        if result.state != "complete":
            result.score, result.values, result.fit = None, {}, None
        return result

    def _run_parts(self, settings: JSON, result: TrialResult, report: Report, deadline: float | None) -> None:
        run, asked = self._resolve(apply_settings(self._raw, settings))
        task, rows = self._task_and_rows(run, asked)
        scores: list[Scores] = []
        self.num_steps = (0, sum(num_steps(len(train), run.train) for train in self.held_out.train))
        for part, (train_rows, dev_rows) in enumerate(
            zip(self.held_out.train, self.held_out.dev, strict=True)
        ):
            train, dev = take(rows, train_rows), take(rows, dev_rows)
            reporter = _Reporter(result, report, deadline, self._learn)
            fitted = fit(
                self._with_evaluations(run, len(train)),
                task.refit(train, lambda _: None, asked.options),
                Splits(train, dev),
                listeners=[reporter],
                on_scores=reporter.on_scores,
                encode_rows=lambda *given, part=part: self._encode(part, *given),
            )
            result.steps += fitted.outcome.steps
            if reporter.ended is not None or fitted.scores is None:
                result.state = reporter.ended or "failed"
                return
            if not math.isfinite(fitted.scores.main_value):
                result.state, result.reason = "failed", f"{self.metric} is {fitted.scores.main_value}"
                return
            scores.append(fitted.scores)
            settled = take_settled(run.train, fitted.artifact.run_config.train)
            fitted.artifact.run_config = run.model_copy(update={"train": settled})
            result.fit = fitted if len(self.held_out.train) == 1 else None
        names = scores[0].values
        result.values = {name: float(np.mean([s.values[name] for s in scores])) for name in names}
        result.score = result.values[scores[0].main_metric]

    def _learn(self, scores: Scores, steps: int) -> None:
        self.metric, self.higher_is_better = scores.main_metric, scores.higher_is_better
        self.num_steps = (steps, self.num_steps[1])

    def _with_evaluations(self, run: RunConfig, num_rows: int) -> RunConfig:
        """Return a run that is scored in equal parts of its training."""
        every = max(1, math.ceil(num_steps(num_rows, run.train) / self.tune.evaluations))
        return run.model_copy(update={"train": run.train.model_copy(update={"eval_every": every})})

    def _task_and_rows(self, run: RunConfig, asked: Task) -> tuple[Task, Sequence[Example]]:
        """Return the task that has learned from the rows, and the rows; read anew where options need it."""
        names = asked.row_options
        given = {name: value for name, value in _options_of(asked).items() if names is None or name in names}
        own = {name: value for name, value in _options_of(self.task).items() if name in given}
        if given == own:
            return self.task, self._rows
        key = json.dumps(given, sort_keys=True, default=str)
        if key not in self._variants:
            task = copy.deepcopy(asked)
            splits = read_datasets(run, task, Console(quiet=True))
            by_location = {
                example.location: example for part in (splits.train, splits.dev) for example in part
            }
            try:
                rows = [by_location[example.location] for example in self._rows]
            except KeyError as error:
                raise DataError(
                    f"{error.args[0]}: this row is not used with {key}, so trials could not be compared"
                ) from None
            self._variants[key] = task, rows
        return self._variants[key]

    def _encode(
        self, part: int, run: RunConfig, task: Task, tokenizer: Tokenizer, splits: Splits, console: Console
    ) -> dict[str, EncodedDataset]:
        """Return the rows as tokens, made once for each tokenizer, length and set of row options."""
        names = task.row_options
        options = {name: v for name, v in _options_of(task).items() if names is None or name in names}
        parts = [part, run.model, tokenizer.max_length, *tokenizer.truncation_settings, options]
        key = json.dumps(parts, sort_keys=True, default=str)
        if key not in self._encoded:
            while len(self._encoded) >= MOST_ENCODED * len(self.held_out.train):
                self._encoded.popitem(last=False)
            self._encoded[key] = encode_datasets(run, task, tokenizer, splits, console)
        self._encoded.move_to_end(key)
        return self._encoded[key]


def _options_of(task: Task) -> JSON:
    return dict(task.options.model_dump(mode="json"))


def _renamed(note: Note) -> Note:
    """Return a note that names the limit of the search, not that of the run."""
    return lambda line: note(line.replace("data.limit", "tune.limit"))


class _NoteConsole(Console):
    """A console whose lines go to a note, without their prefix."""

    def __init__(self, note: Note) -> None:
        super().__init__()
        self._note = note

    def info(self, line: str) -> None:
        """Hand a line on."""
        self._note(line.removeprefix("data: "))
