"""`bertune sets` on the command line."""

from __future__ import annotations

from typing import Annotated

import typer

from bertune.cli import options as opt
from bertune.cli.output import exit_guarded, print_json
from bertune.files import expand_user

SetNames = Annotated[
    list[str] | None,
    typer.Argument(metavar="[SUITE|SET]...", help="glue, clue, ner, sts, or a set such as glue:cola."),
]
Root = Annotated[
    str | None,
    typer.Option("--root", help="A folder to look for their files.", show_default=False, parser=expand_user),
]


def sets(
    names: SetNames = None, root: Root = None, as_json: opt.Json = False, debug: opt.Debug = False
) -> None:
    """List the data sets that have a name.

    Such a name stands for a task: bertune train glue:cola data.root=FOLDER.
    """

    def work() -> None:
        from bertune.commands.sets import list_sets, set_lines

        described = list_sets(names or [], root)
        if as_json:
            print_json({one["name"]: one for one in described})
        else:
            print("\n".join(set_lines(described)))

    exit_guarded(work, debug)
