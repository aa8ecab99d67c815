"""`bertune evaluate`: scores a saved model on files with targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bertune import distributed
from bertune.artifact.read import read_artifact
from bertune.config.reading import reading_config
from bertune.console import Console, prefixed
from bertune.kernels.precision import choose_device
from bertune.tasks.base.datasets import scratch_dir, write_dataset
from bertune.tasks.base.reading import check_examples, read_examples
from bertune.types import Scores


@dataclass(frozen=True)
class Evaluation:
    """How good a model is on some files."""

    scores: Scores
    """The figures of the task."""
    loss: float
    """The mean loss over what the task counts, such as rows; NaN if it has none."""
    num_truncated_rows: int
    """How many rows were longer than max_length."""


def evaluate(
    folder: str | Path,
    files: str | Sequence[str],
    overrides: Sequence[str] = (),
    *,
    device: str = "auto",
    precision: str = "auto",
    task: str | None = None,
    console: Console | None = None,
) -> Evaluation:
    """Score a saved model on files with targets; several processes share the work, and each has the result.

    Args:
        folder: what `train` has written.
        files: one file or several.
        overrides: `data.name=value`, such as data.encoding=gb18030.
        device: auto, cpu, cuda or mps.
        precision: auto, fp32, bf16 or fp16; or int8, on processors with units for it.
        task: the Python file of a task of your own.
        console: shows progress; without it nothing is shown.

    Raises:
        BertuneError: the folder, a setting or a row cannot be used.
    """
    distributed.init(use_cpu=choose_device(device).type == "cpu")
    console = console or Console(quiet=True)
    note = prefixed(console)
    artifact = read_artifact(folder, task, lambda line: console.info(f"note: {line}"))
    sources = [files] if isinstance(files, str) else list(files)
    data = reading_config(artifact.run_config.data, sources[0], overrides)
    artifact = artifact.for_reading(data)
    scored_task = artifact.task
    with scratch_dir(data, sources, console) as scratch:
        arrow_path = None if scratch is None else scratch / "examples.arrow"
        examples = read_examples(sources, scored_task, data, note, to_score=True, arrow_path=arrow_path)
        examples = check_examples(examples, scored_task, data, note)
        pipeline = artifact.pipeline(device, precision)
        if scratch is None:
            result = pipeline.predict_examples(examples)
        else:
            dataset = write_dataset(scratch, "rows", scored_task, pipeline.tokenizer, examples, console)
            result = pipeline.predict_dataset(dataset)
        for line in scored_task.report():
            note(line)
        scores = scored_task.score(result.predictions, examples)
        return Evaluation(scores, result.loss, pipeline.num_truncated_rows)
