"""`bertune bench`: every set of a suite with every model and seed, one table."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bertune.commands.bench_request import BenchRequest, make_plan
from bertune.commands.bench_run import MODULE
from bertune.commands.train import prepare
from bertune.console import Console
from bertune.errors import ConfigError, Interrupted, listed
from bertune.files import locked, remove_folder
from bertune.selection.bench.plan import BenchPlan, BenchRun, check_plan, write_plan
from bertune.selection.bench.process import crash_message, run_process, sigterm_interrupts
from bertune.selection.bench.progress import BenchProgress
from bertune.selection.bench.records import RunRecord, read_predictions, read_record, write_record
from bertune.selection.bench.report import write_report
from bertune.selection.bench.result import BenchResult, SetResult, collect
from bertune.selection.bench.submission import score_to_beat, write_submissions
from bertune.selection.bench.versus import compare_variants
from bertune.tasks.base.datasets import read_datasets
from bertune.tasks.base.task import Task
from bertune.types import JSON, Example, Prediction

Records = dict[tuple[str, str, int], RunRecord]
"""By set, variant and seed."""


def bench(  # noqa: PLR0913  (the options of the command)
    source: str | Path | dict[str, Any],
    overrides: Sequence[str] = (),
    *,
    models: Sequence[str | Path] = (),
    root: str | Path | None = None,
    seeds: Sequence[int] | str | None = None,
    sets: Sequence[str] | str | None = None,
    compare: Sequence[str] = (),
    out: str | Path | None = None,
    keep_models: bool = False,
    submit: bool = False,
    console: Console | None = None,
) -> BenchResult:
    """Train every set of a suite with every seed, and compare models or settings pair by pair.

    Each run has a process of its own. OUT then has `bench.json`, `bench.md` and `bench.html`. The same call
    goes on where an earlier one was stopped; runs that are done are not repeated, and those that failed are
    tried again.

    Args:
        source: a suite (glue, clue, ner, sts), a named set such as glue:cola, a file with a suite of your own
            (YAML), or its content as a dictionary.
        overrides: `section.name=value`, for the runs of all sets.
        models: encoders; two or more are compared.
        root: the folder with the files of named sets; without it they come from the Hub.
        seeds: each set is trained with each of these: [1, 2, 3] or "1,2,3".
        sets: run these sets of the suite alone.
        compare: settings to compare with the base, such as "train.layer_decay=0.9"; several of one side are
            divided by blanks. What has no "=" is another model.
        out: OUT; without it runs/bench-SUITE.
        keep_models: keep the folder of every run, with its model.
        submit: also predict the test rows of named sets that have leaderboards, by the best seed of each set,
            into OUT/submission.
        console: shows progress; without it nothing is shown.

    Returns:
        All numbers; `failed` has the runs that did not end well.

    Raises:
        BertuneError: the suite, a setting or a model cannot be used, or OUT holds another bench; nothing has
            been written.
        Interrupted: Ctrl-C or SIGTERM; the same call goes on.
    """
    _refuse_processes()
    console = console or Console(quiet=True)
    request = BenchRequest.of(source, overrides, models, root, seeds, sets, compare, out)
    notes: list[str] = []
    plan = make_plan(request, notes.append)
    is_begun = check_plan(plan)
    for line in notes:
        console.info(f"note: {line}")
    _announce(plan, console, is_begun=is_begun)
    plan.out.parent.mkdir(parents=True, exist_ok=True)
    with locked(plan.out), sigterm_interrupts():
        check_plan(plan)  # another process may have begun it meanwhile
        write_plan(plan)
        try:
            result = _run_all(plan, console, keep_models=keep_models, submit=submit)
            result = _compare(result, console)
        except KeyboardInterrupt as stopped:
            number = stopped.number if isinstance(stopped, Interrupted) else signal.SIGINT
            raise Interrupted(f"stopped; go on with the same command: {request.command}", number) from None
        if submit:
            write_submissions(result, console.info)
        write_report(result, request.command)
    return result


def _refuse_processes() -> None:
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count > 1:
        raise ConfigError(
            f"bench: starts its runs itself, one after the other, and {count} processes were started; start "
            "it without a launcher. A GPU is used where there is one"
        )


def _announce(plan: BenchPlan, console: Console, *, is_begun: bool) -> None:
    """Say what is going to be run, and what is not."""
    sets, variants, seeds = len(plan.runnable), len(plan.variants), len(plan.seeds)
    counts = [(sets, "set"), (variants, "model"), (seeds, "seed")]
    if any(len(variant.overrides) > 1 for variant in plan.variants):
        counts[1] = (variants, "setting")
    parts = [f"{count} {name}{'' if count == 1 else 's'}" for count, name in counts]
    goes_on = "; goes on" if is_begun else ""
    runs = f"{sets * variants * seeds} runs, in {plan.out}{goes_on}"
    console.info(f"bench: {plan.suite}: {', '.join(parts)}: {runs}")
    for data in plan.sets:
        if data.why_not:
            console.info(f"not run: {data.name}: {data.why_not}")
        for line in () if data.why_not else data.notes:
            console.info(f"data: {line}")
    if seeds == 1:
        console.info("note: one seed has no interval over seeds; intervals are of rows")


def _run_all(plan: BenchPlan, console: Console, *, keep_models: bool, submit: bool) -> BenchResult:
    """Run what is not done; return the result without comparisons."""
    progress, records = BenchProgress(plan, console), Records()
    with console.live(progress.lines):
        number = 0
        for data in plan.runnable:
            for run in (run for run in plan.runs() if run.data is data):
                number += 1
                progress.begin(number, run)
                before = _finished(run, console)
                record = before or _run(run, _job(run, plan, keep_models=keep_models, submit=submit))
                if not record.summary.get("kept", True):
                    remove_folder(run.folder)  # a process may have been killed before it did so
                records[data.name, run.variant.name, run.seed] = record
                progress.end(number, run, record, before=before is not None)
            result = collect(plan, records)
            progress.end_set([result.results[data.name, variant.name] for variant in plan.variants])
    return collect(plan, records)


def _finished(run: BenchRun, console: Console) -> RunRecord | None:
    """Return the record of a run that is done, on the files as they are now; None if it must be run."""
    record = read_record(run.record)
    if record is None or not record.is_done:
        return None
    changed = [
        name for name, value in record.summary.get("files", {}).items() if run.files.get(name) != value
    ]
    if not changed:
        return record
    console.info(f"note: {run.title}: is run again, since {listed(changed)} has changed since")
    remove_folder(run.folder)
    return None


def _run(run: BenchRun, job: JSON) -> RunRecord:
    """Train one run in a process of its own; return its record, also of one that has crashed."""
    try:
        run.folder.parent.mkdir(parents=True, exist_ok=True)
        run.record.unlink(missing_ok=True)  # of a run that failed before
        _clear_failed(run)
        run.log.unlink(missing_ok=True)
        code = run_process(MODULE, job, run.log)
        record = read_record(run.record)
        if record is None:
            record = RunRecord(crash_message(code, run.log))
            write_record(run.record, record)
    except OSError as error:
        raise ConfigError(f"-o {run.out}: cannot be written: {error.strerror or error}") from None
    return record


def _clear_failed(run: BenchRun) -> None:
    """Remove a folder that holds no run to go on with."""
    if run.folder.is_dir() and not (run.folder / "run.yaml").is_file():
        remove_folder(run.folder)


def _job(run: BenchRun, plan: BenchPlan, *, keep_models: bool, submit: bool) -> JSON:
    submission: JSON | None = None
    if submit and run.data.boards:
        best = score_to_beat(run, plan.seeds)
        where = {"sets": run.data.boards, "root": run.data.root, "folder": str(run.submission)}
        submission = {**where, "to_beat": best}
    return {
        "settings": run.settings,
        "record": str(run.record),
        "predictions": str(run.predictions),
        "files": run.files,
        "keep": keep_models,
        "submission": submission,
    }


def _compare(result: BenchResult, console: Console) -> BenchResult:
    """Add the comparisons of models, where there are two or more."""
    if len(result.plan.variants) < 2:
        return result
    plan = result.plan
    cache: dict[tuple[str, int | None], tuple[Task, Sequence[Example]]] = {}

    def read_rows(each: SetResult, seed: int) -> tuple[Task, Sequence[Example]]:
        settings = plan.run_of(each.data, each.variant, seed).settings
        has_dev_file = settings.get("data", {}).get("dev") is not None
        key = each.data.name, None if has_dev_file else seed
        if key not in cache:
            cache.clear()  # one set at a time in memory
            run, task = prepare({name: value for name, value in settings.items() if name != "out"})
            cache[key] = task, read_datasets(run, task, Console(quiet=True)).dev
        return cache[key]

    def read_kept(each: SetResult, seed: int) -> Sequence[Prediction]:
        return read_predictions(plan.run_of(each.data, each.variant, seed).predictions)

    return replace(result, versus=compare_variants(result, read_rows, read_kept, console.info))
