"""Tiny runs, built by bertune's own functions from the settings of a run and a few rows.

    built = build_run({"task": "classify", "model": str(tiny)}, [{"text": "good", "label": "+"}, ...])
    step = build_step({"task": "embed", "model": str(tiny), "train": {"batch_size": 8}}, rows)

Pretrained encoders: the fixtures `tiny` and `encoder_of`, and `make_encoder`, of tests/conftest.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.state import AcceleratorState

from bertune.commands.train import prepare
from bertune.config.schema import DataConfig, RunConfig
from bertune.data.dataset import EncodedDataset
from bertune.data.records import BadRows, ReadOptions
from bertune.data.rows import open_rows
from bertune.encoders.load import LoadReport
from bertune.heads.model import Model
from bertune.tasks.base.task import Task
from bertune.tasks.tag import Tag
from bertune.text.tokenizer import Tokenizer
from bertune.training.build import build_model
from bertune.training.rng import seed_everything
from bertune.training.step import TrainStep
from bertune.types import Example, Location, Row
from tests.conftest import make_encoder

Rows = Sequence[Example | dict[str, Any]]
"""Examples, or rows as a data file has them."""


@dataclass(frozen=True)
class BuiltRun:
    """All that a training step needs."""

    run: RunConfig
    task: Task
    examples: list[Example]
    model: Model
    tokenizer: Tokenizer
    report: LoadReport
    dataset: EncodedDataset

    def step(self, warn: Callable[[str], None] = lambda _: None) -> TrainStep:
        """The run before its first step, on a processor. Processes and precision are set up anew."""
        AcceleratorState._reset_state(reset_partial_state=True)
        return TrainStep(
            self.model,
            self.task,
            self.dataset,
            self.run,
            Accelerator(cpu=True),
            location_of=lambda row: str(self.examples[row].location),
            warn=warn,
        )


def make_still_encoder(folder: Path, kind: str = "bert", **changes: object) -> Path:
    """Write a tiny pretrained encoder without dropout."""
    names = {"distilbert": ("dropout", "attention_dropout")}
    hidden, attention = names.get(kind, ("hidden_dropout_prob", "attention_probs_dropout_prob"))
    return make_encoder(folder, kind, **{hidden: 0.0, attention: 0.0, **changes})


def read_rows(task: Task, rows: Rows) -> list[Example]:
    """The examples of rows, as if they came from lines of the file rows.jsonl."""
    return [
        row if isinstance(row, Example) else task.read(Row(row, Location("rows.jsonl", number)))
        for number, row in enumerate(rows, 1)
    ]


def read_tagging_file(
    path: object, *, target: bool = True, bad: BadRows | None = None, **settings: object
) -> tuple[list[Row], list[str]]:
    """The rows of a file with a tag for each word, and the notes about it.

    Args:
        path: the file.
        target: whether rows must have tags.
        bad: collects rows that cannot be used; without it one is an error.
        settings: of `data`.
    """
    notes: list[str] = []
    bad = bad or BadRows()
    options = ReadOptions(str(path), DataConfig(**settings), Tag.columns, bad, notes.append, target)
    rows = list(open_rows(options))
    return rows, [*notes, *bad.finish()]


def build_run(
    settings: str | dict[str, Any],
    rows: Rows,
    *,
    overrides: Sequence[str] = (),
    seed: int | None = None,
) -> BuiltRun:
    """Fit a task to rows, and build its model and its encoded rows.

    Args:
        settings: of the run; `model` is a folder.
        rows: what it is trained on.
        overrides: `section.name=value`.
        seed: of the new weights, if not the run's own.
    """
    run, task = prepare(settings, overrides)
    examples = read_rows(task, rows)
    task.fit(examples, lambda _: None)
    seed_everything(run.seed if seed is None else seed)
    built = build_model(run, task)
    dataset = EncodedDataset(task.encode(examples, built.tokenizer))
    return BuiltRun(run, task, examples, built.model, built.tokenizer, built.report, dataset)


def build_step(settings: dict[str, Any], rows: Rows, **more: Any) -> TrainStep:
    """Build a run up to its first step; see `build_run`."""
    return build_run(settings, rows, **more).step()
