"""`bertune tune`."""

from __future__ import annotations

from typing import Annotated

import typer

from bertune.cli import options as opt
from bertune.cli.output import exit_guarded, print_json
from bertune.files import expand_user

Source = Annotated[
    str,
    typer.Argument(
        metavar="RUN.yaml|TASK|SET|OUT",
        help="A run file with a section search, or a task; with --resume also the folder of a search.",
        parser=expand_user,
    ),
]
Trials = Annotated[
    int | None, typer.Option("--trials", help="How many trials there are in all.", show_default=False)
]
Time = Annotated[
    str | None,
    typer.Option(
        "--time", help="Begin no trial after this time, such as 90s, 30m or 2h.", show_default=False
    ),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with the search in the folder, also beside other processes.")
]


def tune(
    source: Source,
    overrides: opt.Overrides = None,
    trials: Trials = None,
    time: Time = None,
    resume: Resume = False,
    as_json: opt.Json = False,
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> None:
    """Search for good settings, and train the best. The last line printed is the folder."""

    def work() -> None:
        from bertune.commands.tune import tune
        from bertune.console import Console

        result = tune(
            source, overrides or [], trials=trials, time=time, resume=resume, console=Console(quiet)
        )
        if as_json:
            print_json(result.to_json())
        else:
            print(result.folder)

    exit_guarded(work, debug)
