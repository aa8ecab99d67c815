"""`bertune ensemble` on the command line."""

from __future__ import annotations

from typing import Annotated

import typer

from bertune.cli import options as opt
from bertune.cli.output import exit_guarded
from bertune.files import expand_user

EnsembleFolder = Annotated[
    str, typer.Argument(metavar="OUT", help="The folder to write.", parser=expand_user)
]
Members = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL", help="Two or more folders that bertune train has written; copied into OUT."
    ),
]


def ensemble(
    out: EnsembleFolder,
    models: Members,
    task: opt.TaskFile = None,
    model_code: opt.ModelCode = "never",
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> None:
    """Join models of one task to a folder that predicts their mean. The last line printed is the folder."""

    def work() -> None:
        from bertune.cli.output import require_single_process
        from bertune.commands.ensemble import ensemble
        from bertune.console import Console

        require_single_process("ensemble")
        print(ensemble(models, out, task=task, model_code=model_code, console=Console(quiet)))

    exit_guarded(work, debug)
