"""Cross-validation: trains on all folds but one and scores that one, for each; or trains with each seed."""

from __future__ import annotations

import copy
import gc
import math
import shlex
import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from bertune.config.schema import RunConfig
from bertune.console import Console
from bertune.data.dataset import EncodedDataset
from bertune.data.example_store import take
from bertune.data.split import IntArray
from bertune.errors import BertuneError, ConfigError, DataError, Interrupted, TrainingError
from bertune.files import sha256_of_json
from bertune.selection.fit import Fit, fit
from bertune.selection.out_of_fold import OUT_OF_FOLD, OutOfFold, write_predictions
from bertune.selection.parts import Part, PartStore, scores_from_json
from bertune.selection.request import CrossvalRequest
from bertune.selection.spread import Spread, spread_of_metrics
from bertune.tasks.base.baselines import with_baseline
from bertune.tasks.base.datasets import encode_datasets
from bertune.tasks.base.reading import Splits
from bertune.tasks.base.task import Task
from bertune.text.tokenizer import Tokenizer
from bertune.training.listener import Listener
from bertune.training.oom import is_out_of_memory
from bertune.types import JSON, Example, Prediction, Scores

BY_SEED = "dev_by_seed.jsonl"


@dataclass(frozen=True)
class CrossvalResult:
    """What a cross-validation came to."""

    folder: Path
    """Where everything is written."""
    part: str
    """What was repeated: fold or seed."""
    parts: tuple[Part, ...]
    """Each fold or seed."""
    spread: dict[str, Spread]
    """Mean, deviation and interval of each metric over the parts."""
    pooled: Scores | None
    """Scores of all rows together, each predicted by the model that was not trained on it, with bootstrap
    intervals. None for seeds, and where scores come from vectors, which differ from model to model."""
    models: dict[str, dict[str, Scores]] = field(default_factory=dict)
    """For `model` (--refit) and `ensemble` the scores of `dev` and `test`, as far as there are such rows."""

    @property
    def main_metric(self) -> str:
        """The main metric."""
        return self.parts[0].scores.main_metric

    def to_json(self) -> JSON:
        """Return it as JSON values, as scores.json has them."""
        return {
            "main": self.main_metric,
            "higher_is_better": self.parts[0].scores.higher_is_better,
            "repeats": self.part,
            "spread": {name: spread.to_json() for name, spread in self.spread.items()},
            "pooled": None if self.pooled is None else self.pooled.to_json(),
            "models": {
                name: {split: scores.to_json() for split, scores in by_split.items()}
                for name, by_split in self.models.items()
            },
            "parts": [part.to_json() for part in self.parts],
        }

    @classmethod
    def from_json(cls, folder: Path, values: JSON) -> CrossvalResult:
        """Return what `to_json` wrote."""
        parts = tuple(Part.from_json(part) for part in values["parts"])
        return cls(
            folder,
            values["repeats"],
            parts,
            spread_of_metrics([part.scores.values for part in parts]),
            None if values["pooled"] is None else scores_from_json(values["pooled"]),
            {
                name: {split: scores_from_json(scores) for split, scores in by_split.items()}
                for name, by_split in values["models"].items()
            },
        )


class CrossValidation:
    """The folds or seeds of one cross-validation.

    Args:
        run: the settings, with `out`.
        task: has learned from all training rows.
        splits: these rows, and those of dev and test files.
        folds: (rows,) the fold of each training row, from 0; None for seeds.
        request: what is asked for.
        console: shows progress.
    """

    def __init__(
        self,
        run: RunConfig,
        task: Task,
        splits: Splits,
        folds: IntArray | None,
        request: CrossvalRequest,
        console: Console,
    ) -> None:
        self.run, self.task, self.splits, self.folds = run, task, splits, folds
        self.request, self.console = request, console
        self.out = Path(str(run.out))
        self.store = PartStore(self.out, request.part)
        self._encoded: dict[str, EncodedDataset] | None = None
        self._shown = False

    @property
    def plan(self) -> JSON:
        """What a resumed cross-validation must share with this one."""
        request = self.request
        folds = None if self.folds is None else self.folds.tolist()
        return {
            "folds": request.folds,
            "seeds": list(request.seeds),
            "group": request.group,
            "refit": request.refit,
            "ensemble": request.ensemble,
            "data": sha256_of_json({"rows": self.splits.fingerprint, "folds": folds}),
        }

    @property
    def resume_command(self) -> str:
        """The command that goes on."""
        return f"bertune crossval {shlex.quote(str(self.out))} --resume"

    @property
    def rows(self) -> Sequence[Example]:
        """The rows that are scored: all training rows; for seeds the dev rows."""
        return self.splits.dev if self.folds is None else self.splits.train

    def run_parts(self) -> list[Part]:
        """Train and score each fold or seed that is not finished yet.

        Raises:
            TrainingError: one of them cannot be trained.
            Interrupted: Ctrl-C; finished ones are kept.
        """
        parts = []
        for position, number in enumerate(self.request.numbers, 1):
            part = self.store.read(number)
            if part is not None:
                self.console.info(f"resume: {self._describe(part)}")
            else:
                part = self._guarded(number, position)
                self.console.info(self._describe(part))
            parts.append(part)
        return parts

    def _describe(self, part: Part) -> str:
        scores, (train, dev) = part.scores, part.num_rows
        return (
            f"{self.request.part} {part.number}: {scores.main_metric} {scores.main_value:.4f}; {train} rows "
            f"train, {dev} are scored; {part.steps} steps in {part.seconds:.1f} s"
        )

    def _guarded(self, number: int, position: int) -> Part:
        """Run a part; say which one failed, and how to go on."""
        name = f"{self.request.part} {number}"
        kept = f"finished {self.request.part}s are kept" if position > 1 else "nothing is finished yet"
        try:
            return self._run_part(number, position)
        except KeyboardInterrupt as stopped:
            raise Interrupted(
                f"stopped in {name}; {kept}; go on with: {self.resume_command}", signal.SIGINT
            ) from stopped
        except (BertuneError, MemoryError, RuntimeError, OSError) as error:
            if isinstance(error, ConfigError | DataError) and position == 1:
                raise
            if isinstance(error, BertuneError):
                reason = str(error)
            elif isinstance(error, OSError):
                reason = f"{self.out}: cannot be written: {error.strerror or error}"
            elif is_out_of_memory(error):
                reason = "out of memory; set train.micro_batches higher or data.max_length lower"
            else:
                raise
            raise TrainingError(
                f"{name}: {reason}. {kept[0].upper()}{kept[1:]}: {self.resume_command} goes on with the same "
                "settings (train.micro_batches and device may change); others need a new folder (out=...)"
            ) from None

    def _run_part(self, number: int, position: int) -> Part:
        run, task, splits = self._rows_of(number)
        console = None if self._shown else self.console
        self._shown = True
        bar = _PartProgress(
            self.console,
            f"{self.request.part} {number} ({position} of {len(self.request.numbers)})",
            lambda: self.store.begin(self.run, self.plan),
        )
        train = run.train.model_copy(update={"eval_every": "end"})
        fitted = fit(
            run.model_copy(update={"train": train}),
            task,
            splits,
            listeners=[bar],
            console=console,
            encode_rows=encode_datasets if self.folds is not None else self._encode_once,
        )
        part = self._part_of(number, fitted, splits)
        if self.request.ensemble:
            fitted.save(self.store.member_folder(number))
        self.store.write(part)
        del fitted
        gc.collect()
        return part

    def _rows_of(self, number: int) -> tuple[RunConfig, Task, Splits]:
        """Return settings, task and rows of a fold or a seed."""
        if self.folds is None:
            run = self.run.model_copy(update={"seed": number})
            return run, copy.deepcopy(self.task), self.splits
        is_held_out = self.folds == number - 1
        train, dev = (take(self.splits.train, np.flatnonzero(mask)) for mask in (~is_held_out, is_held_out))
        task = self.task.refit(train, lambda line: self.console.info(f"data: fold {number}: {line}"))
        return self.run, task, Splits(train, dev)

    def _encode_once(
        self, run: RunConfig, task: Task, tokenizer: Tokenizer, splits: Splits, console: Console
    ) -> dict[str, EncodedDataset]:
        """Return the tokens of the rows, which are the same for all seeds."""
        if self._encoded is None:
            self._encoded = encode_datasets(run, task, tokenizer, splits, console)
        return self._encoded

    def _part_of(self, number: int, fitted: Fit, splits: Splits) -> Part:
        predictions, scores, task = fitted.predict("dev"), fitted.scores, fitted.artifact.task
        if self.folds is None:  # as `train` does
            task.calibrate(predictions, splits.dev, lambda line: self.console.info(f"note: {line}"))
            predictions = task.decide(predictions)
            scores = scores and task.score(predictions, splits.dev, intervals=False)
        if scores is None:  # the loop scores the rows held out after its last step
            raise TrainingError("training ended before the rows held out were scored")
        return Part(
            number,
            scores,
            math.nan if fitted.loss is None else fitted.loss,
            (len(splits.train), len(splits.dev)),
            fitted.outcome.steps,
            fitted.outcome.train_seconds,
            any(p.vectors is not None for p in predictions[:1]),
            predictions,
        )

    def decided(self, parts: Sequence[Part]) -> list[Part]:
        """Return the folds with decisions, such as thresholds, that were chosen on the other folds' rows."""
        if self.folds is None:
            return list(parts)
        predictions = self.predictions_of_rows(parts)
        decided = [self._decide(part, predictions) for part in parts]
        if any(new is not old for new, old in zip(decided, parts, strict=True)):
            self.console.info(
                "note: the decisions of each fold, such as thresholds, are chosen on the predictions of the "
                "other folds' rows, so folds have other scores now than above"
            )
        return decided

    def _decide(self, part: Part, predictions: Sequence[Prediction]) -> Part:
        rows, task = self.splits.train, copy.deepcopy(self.task)
        is_own = self.folds == part.number - 1
        others = np.flatnonzero(~is_own)
        task.calibrate([predictions[n] for n in others.tolist()], take(rows, others), lambda _: None)
        if task.state() == self.task.state():
            return part
        own = task.decide(part.predictions)
        scores = task.score(own, take(rows, np.flatnonzero(is_own)), intervals=False)
        return replace(part, predictions=own, scores=scores)

    def predictions_of_rows(self, parts: Sequence[Part]) -> list[Prediction]:
        """Return for each training row its prediction by the model that was not trained on it."""
        predictions: dict[int, Prediction] = {}
        for part in parts:
            rows = np.flatnonzero(self.folds == part.number - 1).tolist()
            predictions.update(zip(rows, part.predictions, strict=True))
        return [predictions[row] for row in range(len(predictions))]

    def pooled_scores(self, parts: Sequence[Part]) -> Scores | None:
        """Return the scores of all rows together; None where there is no such thing."""
        if self.folds is None or any(part.has_vectors for part in parts):
            return None
        scores = self.task.score(self.predictions_of_rows(parts), self.splits.train)
        return with_baseline(scores, self.task, self.splits.train)

    def write_predictions(self, parts: Sequence[Part]) -> None:
        """Write the predictions of all rows, in their order; for seeds those of each seed.

        Raises:
            ConfigError: they cannot be written.
        """
        try:
            if self.folds is None:
                rows = (
                    OutOfFold(example, prediction, part.number)
                    for part in parts
                    for example, prediction in zip(self.rows, part.predictions, strict=True)
                )
                write_predictions(self.out / BY_SEED, rows, "seed")
                return
            predictions = self.predictions_of_rows(parts)
            numbers = (self.folds + 1).tolist()
            rows = (OutOfFold(*row) for row in zip(self.rows, predictions, numbers, strict=True))
            write_predictions(self.out / OUT_OF_FOLD, rows, "fold")
        except OSError as error:
            raise ConfigError(
                f"out: {str(self.out)!r} cannot be written: {error.strerror or error}; make room, then go on "
                f"with: {self.resume_command}"
            ) from None


class _PartProgress(Listener):
    """Shows a bar while a part trains.

    Args:
        console: where to.
        name: of the part.
        begin: called before the first step, when nothing is wrong with settings and rows.
    """

    def __init__(self, console: Console, name: str, begin: Callable[[], None]) -> None:
        self._console, self._name, self._begin = console, name, begin
        self._bar = ExitStack()

    def on_start(self, step: int, total_steps: int, *, evaluated: bool = True) -> None:
        """Show the bar."""
        self._begin()
        self._bar.enter_context(self._console.progress(self._name, total_steps))

    def on_step(self, step: int, total_steps: int) -> None:
        """Move the bar."""
        self._console.advance(step)

    def on_warning(self, step: int, message: str) -> None:
        """Show the warning."""
        self._console.warning(f"{self._name}: {message}")

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()
