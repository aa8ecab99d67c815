"""`bertune crossval`: its options, and its table."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from bertune.cli import options as opt
from bertune.cli.output import exit_guarded, print_json

if TYPE_CHECKING:
    from bertune.selection.crossval import CrossvalResult

WIDTH = 80

Folds = Annotated[int | None, typer.Option("--folds", help="How many folds; 5 if not given.")]
Group = Annotated[
    str | None,
    typer.Option("--group", metavar="COLUMN", help="Rows with the same value here stay in one fold."),
]
Seeds = Annotated[
    str | None, typer.Option("--seeds", metavar="1,2,3", help="Train with each seed instead of folding.")
]
Refit = Annotated[bool, typer.Option("--refit", help="Also train on all rows, into OUT/model.")]
Ensemble = Annotated[
    bool,
    typer.Option("--ensemble", help="Also keep the models as one that predicts their mean, OUT/ensemble."),
]
ResumeFolds = Annotated[bool, typer.Option("--resume", help="Go on after the last fold that was finished.")]
Source = Annotated[
    str,
    typer.Argument(
        metavar="RUN.yaml|TASK|SET|OUT",
        help="A run file or a task; with --resume also the folder of a cross-validation.",
        parser=opt.expand_user,
    ),
]


def crossval(
    source: Source,
    overrides: opt.Overrides = None,
    folds: Folds = None,
    group: Group = None,
    seeds: Seeds = None,
    refit: Refit = False,
    ensemble: Ensemble = False,
    resume: ResumeFolds = False,
    as_json: opt.Json = False,
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> None:
    """Score settings over folds of the training rows, or over seeds.

    OUT then has the prediction of each row by the model that was not trained on it. The last line printed is
    OUT.
    """

    def work() -> None:
        from bertune.cli.output import require_single_process
        from bertune.commands.crossval import crossval
        from bertune.console import Console
        from bertune.selection.spread import without_nan

        require_single_process("crossval")
        result = crossval(
            source,
            overrides or [],
            folds=folds,
            group=group,
            seeds=seeds,
            refit=refit,
            ensemble=ensemble,
            resume=resume,
            console=Console(quiet),
        )
        if as_json:
            print_json(without_nan({"folder": str(result.folder), **result.to_json()}))
        else:
            print("\n".join([*result_lines(result), str(result.folder)]))

    exit_guarded(work, debug)


def result_lines(result: CrossvalResult) -> list[str]:
    """Format a cross-validation: a table with a row a fold or seed, and what the figures are worth."""
    return [*_table(result), "", *_remarks(result), *_model_lines(result)]


def _table(result: CrossvalResult) -> list[str]:
    """Return the table; metrics that do not fit into the width are left to scores.json."""
    from bertune.console import aligned

    names = [result.main_metric, *(name for name in result.spread if name != result.main_metric)]
    while True:
        header = [result.part, "rows", *(name.replace("_", " ") for name in names)]
        rows = [
            [str(part.number), str(part.num_rows[1]), *(f"{part.scores.values[name]:.4f}" for name in names)]
            for part in result.parts
        ]
        spread = [result.spread[name] for name in names]
        rows += [
            ["mean", "", *(f"{each.mean:.4f}" for each in spread)],
            ["deviation", "", *(f"{each.deviation:.4f}" for each in spread)],
        ]
        if result.pooled is not None:
            values = result.pooled.values
            total = sum(part.num_rows[1] for part in result.parts)
            rows.append(["all rows", str(total), *(f"{values[name]:.4f}" for name in names)])
        lines = aligned(header, rows)
        if len(names) == 1 or max(map(len, lines)) <= WIDTH:
            return lines
        names.pop()


def _remarks(result: CrossvalResult) -> list[str]:
    from bertune.tasks.base.baselines import compare_with_baseline

    main, count = result.main_metric, len(result.parts)
    spread = result.spread[main]
    interval = ""
    if spread.interval is not None:
        low, high = spread.interval
        interval = f", 95 % interval {low:.4f} to {high:.4f} (Student's t over {count} {result.part}s"
        overlap = ", whose training rows overlap, so it is too narrow" if result.part == "fold" else ""
        interval += f"{overlap})"
    sentences = [f"{main}: mean {spread.mean:.4f}{interval}"]
    if result.pooled is not None:
        bounds = result.pooled.intervals.get(main)
        bootstrap = f", 95 % interval {bounds[0]:.4f} to {bounds[1]:.4f} (bootstrap)" if bounds else ""
        sentences.append(
            f"{main} of all rows, each predicted by the model that was not trained on it: "
            f"{result.pooled.main_value:.4f}{bootstrap}"
        )
        if how := compare_with_baseline(result.pooled):
            sentences.append(f"note: {main} of all rows is {how}")
    elif result.part == "fold":
        sentences.append("no score of all rows together, since each model has vectors of its own")
    return [line for sentence in sentences for line in textwrap.wrap(sentence, WIDTH, subsequent_indent="  ")]


def _model_lines(result: CrossvalResult) -> list[str]:
    lines = []
    for name, by_split in result.models.items():
        figures = "; ".join(
            f"{split} {scores.main_metric} {scores.main_value:.4f}" for split, scores in by_split.items()
        )
        lines.append(f"{name}: {result.folder / name}{f' ({figures})' if figures else ''}")
    return lines
