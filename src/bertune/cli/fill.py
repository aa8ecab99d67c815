"""`bertune fill` on the command line: its arguments, and a table for each text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from bertune.cli import options as opt
from bertune.cli.output import exit_guarded, refuse_idle
from bertune.errors import ConfigError
from bertune.files import expand_user

if TYPE_CHECKING:
    from bertune.commands.fill import FilledText
    from bertune.inference.fill_pipeline import Filling

_WIDTH = 80

MaskedModel = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A folder of bertune train pretrain, or of a masked-LM model of transformers.",
        parser=expand_user,
    ),
]
Texts = Annotated[
    list[str] | None,
    typer.Argument(metavar="[TEXT]...", help="Texts, each with [MASK] in it.", show_default=False),
]
File = Annotated[
    str | None,
    typer.Option(
        "--file",
        metavar="FILE|-",
        help="A data file with a text a row, or - for standard input with a text a line.",
        show_default=False,
        parser=expand_user,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--data", help="How to read FILE, as data.name=value; can be repeated.", show_default=False),
]
NumTokens = Annotated[int, typer.Option("-k", min=1, help="How many tokens for each mask.")]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--targets",
        help="Choose among these tokens only: A,B or repeated.",
        show_default=False,
    ),
]
Output = Annotated[
    str | None,
    typer.Option("-o", "--output", help="The file to write: .jsonl.", show_default=False, parser=expand_user),
]


def fill(  # noqa: PLR0913  (the options of the command)
    model: MaskedModel,
    texts: Texts = None,
    file: File = None,
    data: Overrides = None,
    k: NumTokens = 5,
    targets: Targets = None,
    output: Output = None,
    as_json: opt.Json = False,
    task: opt.TaskFile = None,
    model_code: opt.ModelCode = "never",
    device: opt.Device = "auto",
    precision: opt.Precision = "auto",
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> None:
    """Find the tokens that stand where a text has [MASK]."""

    def work() -> None:
        from bertune.cli.output import require_single_process
        from bertune.commands.fill import fill
        from bertune.console import Console

        require_single_process("fill")
        _check(texts or [], file, data, output, as_json=as_json)
        console = Console(quiet)
        filled = fill(
            model,
            texts or [],
            file,
            data or [],
            k=k,
            targets=None if targets is None else split_targets(targets),
            device=device,
            precision=precision,
            model_code=model_code,
            task=task,
            console=console,
        )
        if output is not None or as_json:
            count = _write(filled, output)
            if output is not None:
                console.info(f"{count} texts filled, written to {output}")
            return
        for number, one in enumerate(filled):
            if number:
                print()
            print("\n".join(fill_lines(one)), flush=True)

    exit_guarded(work, debug)


def split_targets(values: list[str]) -> list[str]:
    """Return targets one by one; a comma alone is a target.

    >>> split_targets(["a,b", ",", "c"])
    ['a', 'b', ',', 'c']
    """
    return [part for value in values for part in (value.split(",") if value.strip(",") else [value]) if part]


def _check(
    texts: list[str], file: str | None, data: list[str] | None, output: str | None, *, as_json: bool
) -> None:
    """Refuse options without effect and files of another kind, before any work."""
    if file is None:
        refuse_idle("there is no --file to read", {"--data": data})
    for text in texts:
        if re.match(r"data\.\w+\s*=", text):
            raise ConfigError(
                f"fill: {text!r} is a setting, not a text; for --file FILE type --data {text!r}"
            )
    if output is None:
        return
    refuse_idle("-o writes JSON lines", {"--json": as_json or None})
    if not output.lower().endswith((".jsonl", ".ndjson")):
        raise ConfigError(f"-o {output}: the name must end in .jsonl")


def _write(filled: Iterator[FilledText], output: str | None) -> int:
    """Write a JSON line a text, as they come; return how many."""
    import json
    import sys

    from bertune.inference.writers import open_output

    count = 0
    with open_output(output, sys.stdout) as target:
        for one in filled:
            target.write(json.dumps(one.to_json(), ensure_ascii=False, default=str) + "\n")
            target.flush()
            count += 1
    return count


def fill_lines(filled: FilledText) -> list[str]:
    """Format a text and the tokens for each of its masks, the most probable first."""
    lines = [_in_one_line(filled.text)]
    for number, fillings in enumerate(filled.masks, 1):
        if len(filled.masks) > 1:
            lines.append(f"mask {number} of {len(filled.masks)}:")
        lines += _token_lines(fillings)
    return lines


def _token_lines(fillings: list[Filling]) -> Iterator[str]:
    from bertune.console import aligned

    rows = [[_shown(filling), _score(filling["score"])] for filling in fillings]
    return (f"  {line}" for line in aligned(["token", "score"], rows))


def _score(score: float) -> str:
    """Write a probability in few digits.

    >>> _score(0.25), _score(0.0000123)
    ('0.2500', '1.2e-05')
    """
    return f"{score:.4f}" if score >= 5e-5 else f"{score:.1e}"


def _shown(filling: Filling) -> str:
    """Return a token that can be seen in a column: blanks and control characters are written out."""
    token = filling["token_str"].strip()
    if not token:
        return repr(filling["token_str"]) if filling["token_str"] else f"(id {filling['token']})"
    return token if token.isprintable() else repr(token)


def _in_one_line(text: str) -> str:
    """Return a text in one line of a terminal: of a long one what stands around its first mask."""
    from bertune.console import display_width

    line = " ".join(text.split())
    if display_width(line) <= _WIDTH:
        return line
    mask = re.search(r"\[MASK\]|<mask>", line)
    first, last = mask.span() if mask else (0, 0)
    room = _WIDTH - 6  # "..." on both sides
    is_wider = True
    while is_wider:
        is_wider = False
        for left, right in ((1, 0), (0, 1)):  # by turns
            start, stop = first - left, last + right
            if start >= 0 and stop <= len(line) and display_width(line[start:stop]) <= room:
                first, last, is_wider = start, stop, True
    return f"{'...' if first else ''}{line[first:last]}{'...' if last < len(line) else ''}"
