"""Models that a cross-validation leaves: one of all rows, and the folds' or seeds' models as one."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bertune.artifact.artifact import Artifact
from bertune.artifact.ensemble import EnsembleWriter
from bertune.artifact.ensemble_card import EnsembleCard
from bertune.artifact.members import Member
from bertune.artifact.read import read_artifact
from bertune.artifact.write import write_scores
from bertune.config.schema import RunConfig
from bertune.files import remove_folder, write_text
from bertune.inference.sentence_pipeline import SentencePipeline
from bertune.selection.crossval import CrossValidation
from bertune.selection.parts import Part
from bertune.selection.spread import Spread
from bertune.tasks.base.task import Task
from bertune.training.resume import choose_run_dir, finished_scores
from bertune.training.setup import train_on
from bertune.types import JSON, Scores

MODEL, ENSEMBLE = "model", "ensemble"
"""Folders inside that of the cross-validation."""


def refit_run(run: RunConfig, out: Path) -> RunConfig:
    """Return the settings of the run on all rows: no row chooses a checkpoint."""
    data = run.data if run.data.dev is not None else run.data.model_copy(update={"dev_fraction": 0.0})
    train = run.train.model_copy(update={"eval_every": "end"})
    return run.model_copy(update={"out": str(out), "data": data, "train": train})


def calibrated_task(validation: CrossValidation, parts: Sequence[Part]) -> Task:
    """Return the task with decisions, such as thresholds, from predictions of rows that no model has seen.

    Args:
        validation: the cross-validation.
        parts: the folds as they were predicted, before `CrossValidation.decided`.
    """
    task = copy.deepcopy(validation.task)
    if validation.folds is None:
        return task
    task.calibrate_on(
        validation.predictions_of_rows(parts),
        validation.splits.train,
        lambda line: validation.console.info(f"note: {line}"),
        "out-of-fold rows",
    )
    return task


def refit(
    validation: CrossValidation,
    task: Task,
    pooled: Scores | None,
    spread: dict[str, Spread],
    parts: Sequence[Part],
) -> dict[str, Scores]:
    """Train on all rows, or go on with it; return the scores of dev and test files.

    Raises:
        TrainingError: it cannot be trained.
        Interrupted: a signal came; a checkpoint is written.
    """
    console, out = validation.console, validation.out / MODEL
    run = refit_run(validation.run, out)
    has_begun = out.is_dir()
    run_dir = choose_run_dir(
        run, resume=True, note=lambda line: console.info(f"resume: {line}") if has_begun else None
    )
    if run_dir.finished:
        scores = finished_scores(out)
    else:
        console.info(f"--refit: trains on all {len(validation.splits.train)} rows")
        first = parts[0].scores
        known = pooled or Scores(
            first.main_metric,
            first.higher_is_better,
            {name: each.mean for name, each in spread.items()},
        )
        result = train_on(
            run,
            task,
            validation.splits,
            run_dir=replace(run_dir, command=validation.resume_command),
            console=console,
            known_scores={"out_of_fold": known},
        )
        scores = result.scores
    return {split: figures for split, figures in scores.items() if split != "out_of_fold"}


def write_ensemble(validation: CrossValidation, task: Task, parts: Sequence[Part]) -> dict[str, Scores]:
    """Write the models of all folds or seeds as one folder; return its scores of dev and test rows.

    Raises:
        ArtifactError: it cannot be written.
    """
    out, console = validation.out / ENSEMBLE, validation.console
    members = [
        (part.number, Member.of(_read(validation, folder), str(folder)))
        for part in parts
        if (folder := validation.store.member_folder(part.number)).is_dir()
    ]
    origin = _origin(validation, parts)
    if not (out / "bertune.json").is_file():
        remove_folder(out)
        with EnsembleWriter(out, note=lambda line: console.info(f"note: {line}")) as writer:
            for number, member in members:
                writer.add_folder(validation.store.member_folder(number), member=member)
            writer.finish(state=_state(validation, task, members[0][1].state), origin=origin)
    scores, whole = _score_folder(validation, out)
    if scores:
        card = EnsembleCard(out.name, whole, [member for _, member in members], scores, origin)
        write_text(out / "README.md", card.text())
        write_scores(out, scores, {})
    for split, figures in scores.items():
        console.info(f"ensemble: {split}: {figures.main_metric} {figures.main_value:.4f}")
    return scores


def _origin(validation: CrossValidation, parts: Sequence[Part]) -> str:
    main = Spread.of([part.scores.main_value for part in parts])
    metric, count = parts[0].scores.main_metric, len(parts)
    if validation.folds is None:
        return (
            f"The members were trained on the same rows with {count} seeds; "
            f"on the dev rows the {metric} of one of them is {main.mean:.4f} on average."
        )
    return (
        f"The members are the models of a cross-validation with {count} folds: each was trained on all folds "
        f"but one, and its {metric} on that one is {main.mean:.4f} on average. No row is unseen by all of "
        "them, so the cross-validation gives no score of their mean."
    )


def _state(validation: CrossValidation, task: Task, member: JSON) -> JSON | None:
    """Return the state of a member with what calibration has changed; None where it has changed nothing."""
    before, after = validation.task.state(), task.state()
    changed = {name: value for name, value in after.items() if value != before.get(name)}
    return {**member, **changed} if changed else None


def _read(validation: CrossValidation, folder: Path) -> Artifact:
    run = validation.run
    return read_artifact(folder, run.task if run.task.endswith(".py") else None, run.model_code)


def _score_folder(validation: CrossValidation, folder: Path) -> tuple[dict[str, Scores], Task]:
    """Return the scores of a saved model on dev and test rows, as far as there are any, and its task."""
    splits = {"dev": validation.splits.dev, "test": validation.splits.test}
    artifact = _read(validation, folder)
    if not any(map(len, splits.values())):
        return {}, artifact.task
    pipeline = artifact.pipeline(validation.run.device)
    if isinstance(pipeline, SentencePipeline):
        pipeline.task.search_prompts = pipeline.search_prompts()
    scores = {
        name: artifact.task.score(pipeline.predict_examples(rows, to_score=True).predictions, rows)
        for name, rows in splits.items()
        if rows
    }
    return scores, artifact.task
