"""`bertune trim` on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from bertune.cli import options as opt
from bertune.cli.output import exit_guarded, print_json
from bertune.errors import ConfigError
from bertune.files import expand_user

if TYPE_CHECKING:
    from bertune.commands.trim import TrimResult
    from bertune.commands.trim_effect import Effect

TrimmedModel = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A pretrained encoder (folder, name, Hub id), a folder of bertune train, or one of "
        "sentence-transformers.",
        parser=expand_user,
    ),
]
MoreWords = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="FILE|data.NAME=VALUE",
        help="More files of --texts, and how to read them.",
        show_default=False,
    ),
]
Texts = Annotated[
    list[str],
    typer.Option(
        "--texts",
        metavar="FILE...",
        help="Files with texts of the kind that the model is for.",
        show_default=False,
    ),
]
TrimmedFolder = Annotated[
    str, typer.Option("-o", "--output", metavar="OUT", help="The folder to write.", parser=expand_user)
]
Keep = Annotated[
    int | None,
    typer.Option(help="How many tokens stay in all; by default all that are used.", show_default=False),
]
HeldOut = Annotated[
    str | None,
    typer.Option(
        help="A file to measure on, with targets for scores; by default a tenth of the texts.",
        show_default=False,
        parser=expand_user,
    ),
]
Prompts = Annotated[
    list[str] | None,
    typer.Option(
        "--prompt",
        help='A text that stands before texts, such as "query: ": its pieces stay; can be repeated.',
        show_default=False,
    ),
]


def trim(  # noqa: PLR0913  (the options of a command)
    model: TrimmedModel,
    texts: Texts,
    out: TrimmedFolder,
    more: MoreWords = None,
    keep: Keep = None,
    held_out: HeldOut = None,
    prompt: Prompts = None,
    as_json: opt.Json = False,
    task: opt.TaskFile = None,
    device: opt.Device = "auto",
    precision: opt.Precision = "auto",
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> None:
    """Copy a model with the tokens alone that your texts use.

    Special tokens and single characters stay, so nothing becomes unknown. Says what changes on other texts.
    """

    def work() -> None:
        from bertune.cli.output import require_single_process
        from bertune.commands.trim import trim
        from bertune.console import Console

        require_single_process("trim")
        files, overrides = divide_words([*texts, *(more or [])])
        result = trim(
            model,
            files,
            out,
            overrides,
            keep=keep,
            held_out=held_out,
            prompts=prompt or [],
            device=device,
            precision=precision,
            task=task,
            console=Console(quiet),
        )
        if as_json:
            print_json(result.to_json())
        else:
            print("\n".join([*result_lines(result), f"saved in {result.folder}"]))

    exit_guarded(work, debug)


def divide_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return files, and settings of how to read them.

    Raises:
        ConfigError: a word is a setting of another section.

    >>> divide_words(["a.txt", "data.format=txt", "b.csv"])
    (['a.txt', 'b.csv'], ['data.format=txt'])
    """
    settings = [word for word in words if word.startswith("data.") and "=" in word]
    wrong = next((w for w in words if w.partition("=")[0] in {"keep", "out", "texts", "held_out"}), None)
    if wrong is not None:
        name, _, value = wrong.partition("=")
        option = {"out": "-o", "held_out": "--held-out"}.get(name, f"--{name}")
        raise ConfigError(f"{wrong!r}: write {option} {value or 'VALUE'}")
    return [word for word in words if word not in settings], settings


def result_lines(result: TrimResult) -> list[str]:
    """Format a result: sizes, what was kept, what changes."""
    from bertune.console import aligned

    before, after = result.before, result.after
    rows = [
        ["tokens", f"{before.tokens:,}", f"{after.tokens:,}", _share(after.tokens, before.tokens)],
        ["parameters", _millions(before.parameters), _millions(after.parameters),
         _share(after.parameters, before.parameters)],
        ["size of the folder", _megabytes(before.size_bytes), _megabytes(after.size_bytes),
         _share(after.size_bytes, before.size_bytes)],
    ]  # fmt: skip
    kept = (
        f"kept: {result.kept.special:,} special, {result.kept.base:,} single characters, "
        f"{result.kept.used:,} pieces that {result.num_texts:,} texts use"
    )
    filled = (
        [f"filled up: {result.kept.filled:,} more, the first of the vocabulary"] if result.kept.filled else []
    )
    dropped = (
        [f"left out: {result.kept.left_out:,} pieces that the texts use, the rarest ones"]
        if result.kept.left_out
        else []
    )
    return [
        *aligned(["", "before", "after", ""], rows),
        "",
        kept,
        *filled,
        *dropped,
        "",
        *effect_lines(result.effect),
    ]


def effect_lines(effect: Effect) -> list[str]:
    """Format what changes on the held-out texts."""
    from bertune.console import aligned

    tokens, vectors, scores = effect.tokens, effect.vectors, effect.scores
    texts = max(tokens.texts, 1)
    rows = [
        ["tokens a text", f"{tokens.tokens_before / texts:.2f}", f"{tokens.tokens_after / texts:.2f}"],
        ["unknown tokens", f"{tokens.unknown_before:,}", f"{tokens.unknown_after:,}"],
    ]
    if scores is not None:
        rows.append([scores.metric, f"{scores.before:.4f}", f"{scores.after:.4f}"])
    lines = [
        f"measured on {effect.source}",
        *aligned(["", "before", "after"], rows),
        f"texts with other tokens: {tokens.changed:,} of {tokens.texts:,} ({tokens.changed / texts:.2%})",
        f"cosine before and after, {vectors.what}, {vectors.texts:,} texts:",
        f"  mean {vectors.mean:.5f}, 5th percentile {vectors.percentile_5:.5f}, 1st "
        f"{vectors.percentile_1:.5f}, lowest {vectors.lowest:.5f}",
    ]
    if scores is not None:
        between = (
            f", 95 % interval {scores.interval[0]:+.4f} to {scores.interval[1]:+.4f}"
            if scores.interval
            else ""
        )
        lines.append(f"{scores.metric} after minus before: {scores.difference:+.4f}{between}")
        if scores.disagreements is not None:
            lines.append(f"rows predicted otherwise: {scores.disagreements:,} of {scores.rows:,}")
    return lines


def _share(after: float, before: float) -> str:
    return f"{after / before:.1%}" if before else ""


def _millions(number: int) -> str:
    return f"{number / 1e6:.2f} M"


def _megabytes(number: int) -> str:
    return f"{number / 1e6:.1f} MB"
