"""`bertune convert` on the command line."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from bertune.cli import options as opt
from bertune.cli.output import exit_guarded, print_json
from bertune.files import expand_user

CommandWords = Annotated[
    list[str],
    typer.Argument(
        metavar="COMMAND",
        help="The command in quotes, a file that holds it, a JSON file of arguments, or - for standard "
        "input; without quotes behind --.",
        show_default=False,
    ),
]
RunFile = Annotated[
    str | None,
    typer.Option("-o", "--output", help="The run file to write.", show_default=False, parser=expand_user),
]


def convert(
    command: CommandWords,
    output: RunFile = None,
    as_json: opt.Json = False,
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> None:
    """Turn a command of another tool into a run file."""

    def work() -> None:
        from bertune.commands.convert import convert
        from bertune.console import Console

        found = convert(sys.stdin.read() if command == ["-"] else command, output=output)
        console = Console(quiet)
        for line in found.notes:
            console.info(f"note: {line}")
        if as_json:
            print_json(found.to_json())
        elif output is None:
            print(found.text, end="")
        else:
            print("\n".join(found.commands))

    exit_guarded(work, debug)
