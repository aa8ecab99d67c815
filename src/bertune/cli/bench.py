"""`bertune bench`: its options, and its tables for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from bertune.cli import options as opt
from bertune.cli.output import EXIT_BAD_INPUT, exit_guarded, print_json
from bertune.files import expand_user

if TYPE_CHECKING:
    from bertune.selection.bench.result import BenchResult

Suite = Annotated[
    str,
    typer.Argument(
        metavar="SUITE|FILE.yaml",
        help="glue, clue, ner or sts; one set such as glue:cola; or a file with a suite of your own.",
        parser=expand_user,
    ),
]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", help="The encoder; given twice or more, they are compared.", show_default=False),
]
Root = Annotated[
    str | None,
    typer.Option(
        "--root",
        metavar="DIR",
        help="Folder with the files of the sets; without it: the Hub.",
        show_default=False,
        parser=expand_user,
    ),
]
Seeds = Annotated[
    str | None,
    typer.Option("--seeds", metavar="1,2,3", help="Train each set with each seed.", show_default="1,2,3"),
]
Sets = Annotated[
    str | None,
    typer.Option("--sets", metavar="cola,rte", help="Run these sets of the suite.", show_default="all"),
]
Compare = Annotated[
    list[str] | None,
    typer.Option(
        "--compare",
        metavar="SETTING=VALUE",
        help="Compare these settings with the base, paired; blanks divide several.",
        show_default=False,
    ),
]
Output = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        metavar="OUT",
        help="The folder of the bench; by default runs/bench-SUITE.",
        show_default=False,
        parser=expand_user,
    ),
]
KeepModels = Annotated[
    bool, typer.Option("--keep-models", help="Keep the model of every run; else scores alone.")
]

Submit = Annotated[
    bool,
    typer.Option("--submit", help="Also write files for leaderboards, OUT/submission, by the best seeds."),
]


def bench(  # noqa: PLR0913  (the options of the command)
    source: Suite,
    overrides: opt.Overrides = None,
    model: Models = None,
    root: Root = None,
    seeds: Seeds = None,
    sets: Sets = None,
    compare: Compare = None,
    output: Output = None,
    keep_models: KeepModels = False,
    submit: Submit = False,
    as_json: opt.Json = False,
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> None:
    """Run a suite of sets with several seeds, and show one table.

    The same command goes on where it was stopped. The last line printed is OUT. Exit code 2 if a run failed.
    """

    def work() -> None:
        from bertune.commands.bench import bench
        from bertune.console import Console

        result = bench(
            source,
            overrides or [],
            models=model or [],
            root=root,
            seeds=seeds,
            sets=sets,
            compare=compare or [],
            out=output,
            keep_models=keep_models,
            submit=submit,
            console=Console(quiet),
        )
        if as_json:
            print_json({"folder": str(result.folder), **result.to_json()})
        else:
            print("\n".join([*result_lines(result), str(result.folder)]))
        failures.extend(result.failed)

    failures: list[tuple[str, str]] = []
    exit_guarded(work, debug)
    if failures:
        raise typer.Exit(EXIT_BAD_INPUT)


def result_lines(result: BenchResult) -> Iterator[str]:
    """Yield the tables: scores and costs of each model, comparisons, what others have published."""
    from bertune.selection.bench.tables import (
        published_lines,
        score_table,
        trouble_lines,
        versus_table,
    )

    for variant in result.plan.variants:
        yield from (*score_table(result, variant).lines(), "")
    for versus in result.versus:
        yield from (*versus_table(versus).lines(), "")
    if lines := published_lines(result):
        yield from (*lines, "")
    if lines := trouble_lines(result):
        yield from (*lines, "")
