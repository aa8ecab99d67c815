"""`bertune evaluate`: score a saved model on files with targets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bertune import distributed
from bertune.artifact.read import read_artifact
from bertune.config.reading import reading_config
from bertune.console import Console, prefixed
from bertune.kernels.precision import choose_device
from bertune.tasks.base.datasets import scratch_dir, write_dataset
from bertune.tasks.base.reading import check_examples, read_examples
from bertune.types import Scores


def evaluate(
    folder: str | Path, files: str | Sequence[str], overrides: Sequence[str] = (), **where: Any
) -> tuple[Scores, float, int]:
    """Score a saved model on files with targets; several processes share the work, and each has the result.

    Args:
        folder: what `train` has written.
        files: one file or several.
        overrides: `data.name=value`, such as data.encoding=gb18030.
        where: `device`, `precision`, `task` of `load`, and `console`.

    Returns:
        Scores, mean loss, and how many rows were longer than max_length.
    """
    distributed.init(use_cpu=choose_device(where.get("device", "auto")).type == "cpu")
    console = where.pop("console", Console(quiet=True))
    artifact = read_artifact(folder, where.pop("task", None))
    several = [files] if isinstance(files, str) else list(files)
    data = reading_config(artifact.run_config.data, several[0], overrides)
    task = artifact.task
    task.data = data
    note = prefixed(console)
    with scratch_dir(data, several, console) as kept:
        into = None if kept is None else kept / "examples.arrow"
        examples = check_examples(
            read_examples(several, task, data, note, to_score=True, arrow_path=into), task, data, note
        )
        pipeline = artifact.pipeline(**where)
        if kept is None:
            predictions, loss = pipeline.predict_examples(examples)
        else:
            predictions, loss = pipeline.predict_dataset(
                write_dataset(kept, "rows", task, pipeline.tokenizer, examples, console)
            )
        for line in task.report():
            note(line)
        return task.score(predictions, examples), loss, pipeline.num_truncated_rows
