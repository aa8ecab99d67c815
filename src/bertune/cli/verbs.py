"""One function a verb. Heavy imports stand inside."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from bertune.cli.common import guarded

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help, a third faster
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Fine-tune BERT-family encoders: bertune train TASK data.train=FILE, then predict OUT FILE.",
    epilog="Exit codes: 0 done, 1 a bug of ours, 2 something in your input, 3 a check did not pass.",
)

Debug = Annotated[bool, typer.Option("--debug", help="Show where an error came from.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing on stderr.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Precision = Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="Settings, section.name=value each.", show_default=False)]
DataOverrides = Annotated[list[str] | None, typer.Argument(help="How to read the file, data.name=value each.", show_default=False)]
TaskFile = Annotated[str | None, typer.Option("--task", help="The Python file of a task of your own.", show_default=False)]
Out = Annotated[str, typer.Argument(metavar="OUT", help="A folder that bertune train has written.")]


def _exit(work: Callable[[], object], debug: bool) -> None:
    code = guarded(work, debug=debug)
    if code:
        raise typer.Exit(code)


@app.command()
def init(
    task: Annotated[str, typer.Argument(help="classify, regress, ...")],
    folder: Annotated[str, typer.Argument(help="Where to write.")] = ".",
    debug: Debug = False,
) -> None:
    """Write a run file with every setting explained, and example data."""

    def work() -> None:
        from bertune.starter import init

        for path in init(task, folder):
            print(path)

    _exit(work, debug)


@app.command()
def train(
    source: Annotated[str, typer.Argument(metavar="RUN.yaml|TASK", help="A run file, or the name of a task.")],
    overrides: Overrides = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Fine-tune an encoder; the last line is the folder of the result."""

    def work() -> None:
        from bertune.run import train

        print(train(source, overrides or [], quiet=quiet).folder)

    _exit(work, debug)


@app.command()
def evaluate(
    out: Out,
    file: Annotated[str, typer.Argument(help="A data file with targets.")],
    overrides: DataOverrides = None,
    as_json: Json = False,
    task: TaskFile = None,
    device: Device = "auto",
    precision: Precision = "auto",
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Score a model on a file that has targets."""

    def work() -> None:
        from bertune.cli.common import score_lines
        from bertune.run import evaluate
        from bertune.talk import Talk

        scores, loss, num_cut = evaluate(out, file, overrides or [], task=task, device=device, precision=precision, talk=Talk(quiet))
        if as_json:
            print(json.dumps({**scores.to_json(), "loss": loss, "rows_cut": num_cut}, ensure_ascii=False, indent=2))
        else:
            print("\n".join(score_lines(scores, loss, num_cut)))

    _exit(work, debug)


@app.command()
def predict(
    out: Out,
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="A data file, or - for standard input, a text a line.")],
    overrides: DataOverrides = None,
    output: Annotated[str | None, typer.Option("-o", "--output", help="File to write: .csv, .jsonl or .conll.", show_default=False)] = None,
    form: Annotated[str | None, typer.Option("--format", help="csv, jsonl or conll.", show_default=False)] = None,
    task: TaskFile = None,
    device: Device = "auto",
    precision: Precision = "auto",
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Predict every row of a file, in its order."""

    def work() -> None:
        from bertune.cli.common import predict_to

        predict_to(out, file, overrides or [], output, form, quiet=quiet, task=task, device=device, precision=precision)

    _exit(work, debug)


@app.command()
def inspect(
    file: Annotated[str, typer.Argument(help="A data file with targets.")],
    overrides: DataOverrides = None,
    task: Annotated[str, typer.Option(help="auto, or the name of a task.")] = "auto",
    model: Annotated[str, typer.Option(help="Whose tokenizer shows the tokens.")] = "minilm",
    rows: Annotated[int, typer.Option(min=0, help="How many random rows to show.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Which random rows.")] = 42,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Look at a data file as the model will see it."""

    def work() -> None:
        from bertune.preview import inspect, lines_of

        report = inspect(file, overrides or [], task=task, model=model, rows=rows, seed=seed)
        print(json.dumps(report, ensure_ascii=False, indent=2) if as_json else "\n".join(lines_of(report)))

    _exit(work, debug)


@app.command()
def tasks(as_json: Json = False, debug: Debug = False) -> None:
    """List the tasks and what a row of each looks like."""

    def work() -> None:
        from bertune.tasks import load_task, task_names

        found = {name: load_task(name) for name in task_names()}
        if as_json:
            parts = {n: {"needed": t.columns.needed, "optional": t.columns.optional, "target": t.columns.target} for n, t in found.items()}
            print(json.dumps({n: {"columns": parts[n], "row": json.loads(t.example_row)} for n, t in found.items()}, ensure_ascii=False))
            return
        for name, task in found.items():
            print(f"{name:10} {(task.__doc__ or '').splitlines()[0]}\n{'':10} {task.example_row}")

    _exit(work, debug)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from bertune import __version__

        print(f"bertune {__version__}, Python {sys.version.split()[0]}, {Path(__file__).parents[1]}")
        raise typer.Exit
