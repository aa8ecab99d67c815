"""`bertune crossval`: how good the settings of a run are, over folds of the training rows or over seeds."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bertune.artifact.base_model import take_over, warn_of_seen_rows
from bertune.commands.train import check_run, resolve_run
from bertune.config.load import idle_settings
from bertune.config.schema import RunConfig
from bertune.console import Console, duration
from bertune.data.rows import resolve_files
from bertune.data.split import IntArray
from bertune.errors import BertuneError, ConfigError, DataError
from bertune.files import expand_user, read_json_object, write_json
from bertune.selection.crossval import CrossValidation, CrossvalResult
from bertune.selection.parts import PartStore
from bertune.selection.request import CrossvalRequest, divide, parse_request
from bertune.selection.spread import spread_of_metrics, without_nan
from bertune.tasks.base.datasets import read_datasets
from bertune.tasks.base.groups import read_groups
from bertune.tasks.base.reading import Splits
from bertune.tasks.base.task import Task
from bertune.training.build import check_model
from bertune.training.launch import check_environment
from bertune.training.resume import is_run_dir, new_run_dir, settings_to_resume
from bertune.types import JSON


def crossval(  # noqa: PLR0913  (the options of the command)
    source: str | Path | dict[str, Any],
    overrides: Sequence[str] = (),
    *,
    folds: int | None = None,
    group: str | None = None,
    seeds: Sequence[int] | str | None = None,
    refit: bool = False,
    ensemble: bool = False,
    out: str | Path | None = None,
    resume: bool = False,
    console: Console | None = None,
) -> CrossvalResult:
    """Train on all folds of the training rows but one, score that one, and so for each.

    The rows held out choose nothing: each model is that of the last step. Rows of equal text stay in one
    fold, and labels are spread evenly. OUT then has `out_of_fold.jsonl` with the prediction of each row by
    the model that was not trained on it, `scores.json` and `run.yaml`.

    Args:
        source: a run file, the name of a task, or the settings as a dictionary; with `resume` also the folder
            of a cross-validation.
        overrides: `section.name=value`, applied to the settings.
        folds: how many; 5 if neither folds nor seeds are given.
        group: a column of the data files; rows of one group stay in one fold.
        seeds: train with each of these on the same rows and score the dev rows, instead of folding.
        refit: also train on all rows, into OUT/model.
        ensemble: also keep the models as one folder that predicts their mean, OUT/ensemble.
        out: OUT; without it that of the settings, or else the first free one of runs/TASK-crossval-1, ...
        resume: go on after the last fold that was finished.
        console: shows progress; without it nothing is shown.

    Raises:
        BertuneError: settings, rows or the request cannot be used, and nothing has been written; or training
            cannot go on, and finished folds are kept.
        Interrupted: Ctrl-C; finished folds are kept.
    """
    began = time.perf_counter()
    _refuse_processes()
    console = console or Console(quiet=True)
    if resume and is_run_dir(source):
        source, folds, group, seeds, refit, ensemble = _what_was_asked(
            str(source), folds, group, seeds, refit, ensemble
        )
    elif is_run_dir(source):
        raise ConfigError(f"{source}: is a folder; to go on with its cross-validation, add --resume")
    request, faults = parse_request(folds, group, seeds, refit=refit, ensemble=ensemble)
    run, task = _prepare(source, overrides, request, out, faults, resume=resume, console=console)
    finished = Path(str(run.out)) / "scores.json"
    if resume and finished.is_file():
        return _finished(finished, request, console)
    blank = copy.deepcopy(task)
    splits = read_datasets(_without_split(run, request), task, console)
    validation = _divide(run, task, blank, splits, request, console)
    if resume and validation.store.plan():
        validation.store.check(run, validation.plan, lambda line: console.info(f"resume: {line}"))
        validation.store.remove_unfinished()
    result = _run(validation)
    console.info(f"done in {duration(time.perf_counter() - began)}")
    return result


def _refuse_processes() -> None:
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count > 1:
        raise ConfigError(
            f"crossval: works in one process, and {count} were started; start it without a launcher"
        )


def _what_was_asked(
    folder: str, folds: Any, group: Any, seeds: Any, refit: bool, ensemble: bool
) -> tuple[JSON, Any, Any, Any, bool, bool]:
    """Return settings and request of the cross-validation in a folder; what is given anew counts more."""
    settings = settings_to_resume(folder)
    path = Path(expand_user(folder))
    plan = PartStore(path, "").plan() or read_json_object(path / "scores.json").get("request")
    if not plan or not isinstance(settings, dict):
        raise ConfigError(f"{folder}: holds no cross-validation that was begun")
    if seeds is None and folds is None:
        folds, seeds = plan["folds"], plan["seeds"] or None
    group = plan["group"] if group is None else group
    return settings, folds, group, seeds, refit or plan["refit"], ensemble or plan["ensemble"]


def _prepare(
    source: str | Path | dict[str, Any],
    overrides: Sequence[str],
    request: CrossvalRequest,
    out: str | Path | None,
    faults: list[str],
    *,
    resume: bool,
    console: Console,
) -> tuple[RunConfig, Task]:
    """Check all that can be checked before rows are read; name all faults at once.

    Raises:
        ConfigError: something is wrong.
    """
    given = overrides if out is None else [*overrides, f"out={expand_user(out)}"]
    run: RunConfig | None = None
    notes: list[str] = []
    try:
        run, task = resolve_run(source, given, notes.append)
        run = _with_out(run)
        if not resume or not Path(str(run.out)).is_dir():
            new_run_dir(run)
        elif any(Path(str(run.out)).iterdir()) and not _is_begun(Path(str(run.out))):
            faults.append(f"out: {run.out!r} is not empty and holds no cross-validation; give another folder")
        check_run(run, task)
        if request.seeds and run.data.dev is None and not run.data.dev_fraction:
            faults.append("--seeds: needs dev rows to score, and data.dev_fraction is 0; give data.dev")
    except ConfigError as error:
        faults.append(str(error).replace("; if it is this run that was stopped, go on with --resume", ""))
    if faults or run is None:
        raise ConfigError(faults[0] if len(faults) == 1 else "\n".join(faults))
    run = take_over(run, task, notes.append)
    warn_of_seen_rows(run, notes.append)
    train = run.train.model_copy(update={"eval_every": "end"})
    idle = idle_settings(_without_split(run, request).model_copy(update={"train": train}))
    for line in [*notes, *dict.fromkeys(idle)]:
        console.info(f"note: {line}")
    check_environment(run)
    check_model(run)
    if request.ensemble and (unfit := task.ensemble_faults()):
        raise ConfigError(f"--ensemble: {'; '.join(unfit)}")
    return run, task


def _with_out(run: RunConfig) -> RunConfig:
    if run.out is not None:
        return run
    name = f"{Path(run.task).stem}-crossval"
    free = next(path for n in range(1, 10**6) if not (path := Path("runs") / f"{name}-{n}").exists())
    return run.model_copy(update={"out": str(free)})


def _is_begun(out: Path) -> bool:
    return bool(PartStore(out, "").plan()) or "repeats" in read_json_object(out / "scores.json")


def _without_split(run: RunConfig, request: CrossvalRequest) -> RunConfig:
    """Return settings that split no dev set off, where all training rows are folded."""
    if request.seeds or run.data.dev is not None:
        return run
    return run.model_copy(update={"data": run.data.model_copy(update={"dev_fraction": 0.0})})


def _finished(scores: Path, request: CrossvalRequest, console: Console) -> CrossvalResult:
    """Return the result of a cross-validation that is finished.

    Raises:
        ConfigError: more is asked for than it was.
    """
    values = read_json_object(scores)
    asked = values.get("request", {})
    more = [f"--{name}" for name in ("refit", "ensemble") if getattr(request, name) and not asked.get(name)]
    if more:
        raise ConfigError(
            f"--resume: the cross-validation in {str(scores.parent)!r} is finished and was not asked for "
            f"{', '.join(more)}; start a new one (out=...)"
        )
    PartStore(scores.parent, "").clear()  # a process may have been killed while it did so
    console.info(f"resume: the cross-validation in {str(scores.parent)!r} is finished; nothing is left to do")
    return CrossvalResult.from_json(scores.parent, values)


def _divide(
    run: RunConfig,
    task: Task,
    blank: Task,
    splits: Splits,
    request: CrossvalRequest,
    console: Console,
) -> CrossValidation:
    """Divide the rows into folds, if there are to be any.

    Raises:
        BertuneError: the rows cannot be divided so.
    """

    def note(line: str) -> None:
        console.info(f"data: {line}")

    folds = None
    if request.folds is not None:
        groups, faults = _read_groups(run, blank, splits, request)
        try:
            folds = divide(splits.train, task, request.folds, groups, run.seed, note)
        except DataError as error:
            faults.append(error)
        if faults:
            raise faults[0] if len(faults) == 1 else DataError("\n".join(map(str, faults)))
        given = [name for name in ("dev", "test") if getattr(splits, name)]
        if given:
            use = "they score the models of --refit and --ensemble"
            if not (request.refit or request.ensemble):
                use = "nothing uses them without --refit or --ensemble"
            note(f"{' and '.join(given)} rows are not folded; {use}")
    return CrossValidation(run, task, splits, folds, request, console)


def _read_groups(
    run: RunConfig, blank: Task, splits: Splits, request: CrossvalRequest
) -> tuple[IntArray | None, list[BertuneError]]:
    """Return the group of each training row, where groups are asked for; or why there are none."""
    if request.group is None:
        return None, []
    files = resolve_files(run.data.train or [], "train")
    try:
        return read_groups(files, blank, run.data, request.group, splits.train), []
    except (ConfigError, DataError) as error:
        return None, [error]


def _run(validation: CrossValidation) -> CrossvalResult:
    """Train every part, then the models that are asked for; write the results, scores.json last."""
    from bertune.selection.refit import ENSEMBLE, MODEL, calibrated_task, refit, write_ensemble

    request = validation.request
    undecided = validation.run_parts()
    parts = validation.decided(undecided)
    validation.write_predictions(parts)
    pooled = validation.pooled_scores(parts)
    spread = spread_of_metrics([part.scores.values for part in parts])
    models = {}
    if request.refit or request.ensemble:
        task = calibrated_task(validation, undecided)
        if request.ensemble:
            models[ENSEMBLE] = write_ensemble(validation, task, parts)
        if request.refit:
            models[MODEL] = refit(validation, task, pooled, spread, parts)
    result = CrossvalResult(validation.out, request.part, tuple(parts), spread, pooled, models)
    plan = {name: value for name, value in validation.plan.items() if name != "data"}
    write_json(validation.out / "scores.json", without_nan({"request": plan, **result.to_json()}))
    validation.store.clear()
    return result
