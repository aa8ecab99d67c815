"""One function a verb. Heavy imports stand inside."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from bertune.cli.output import run_guarded

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
Precision = Annotated[
    str, typer.Option(help="auto, fp32, bf16, fp16, or int8 on processors that have units for it.")
]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Settings, section.name=value each.", show_default=False)
]
DataOverrides = Annotated[
    list[str] | None, typer.Argument(help="How to read the file, data.name=value each.", show_default=False)
]
TaskFile = Annotated[
    str | None, typer.Option("--task", help="The Python file of a task of your own.", show_default=False)
]
Out = Annotated[str, typer.Argument(metavar="OUT", help="A folder that bertune train has written.")]


def _exit(work: Callable[[], object], debug: bool) -> None:
    code = run_guarded(work, debug=debug)
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
        from bertune.commands.init import init

        for path in init(task, folder):
            print(path)

    _exit(work, debug)


@app.command()
def train(
    source: Annotated[
        str,
        typer.Argument(metavar="RUN.yaml|TASK|OUT", help="A run file, a task; with --resume a run's folder."),
    ],
    overrides: Overrides = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint, if there is one.")
    ] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Fine-tune an encoder; the last line is the folder of the result."""

    def work() -> None:
        from bertune.cli.output import is_main_process
        from bertune.commands.train import train

        trained = train(source, overrides or [], quiet=quiet, resume=resume)
        if is_main_process():
            print(trained.folder)

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
        from bertune.cli.output import is_main_process, score_lines
        from bertune.commands.evaluate import evaluate
        from bertune.console import Console

        console = Console(quiet or not is_main_process())
        scores, loss, num_truncated_rows = evaluate(
            out, file, overrides or [], task=task, device=device, precision=precision, console=console
        )
        if not is_main_process():
            return
        if as_json:
            known = {
                **scores.to_json(),
                "loss": None if math.isnan(loss) else loss,
                "rows_cut": num_truncated_rows,
            }
            print(json.dumps(known, ensure_ascii=False, indent=2))
        else:
            print("\n".join(score_lines(scores, loss, num_truncated_rows)))

    _exit(work, debug)


@app.command()
def predict(
    out: Out,
    file: Annotated[
        str, typer.Argument(metavar="FILE|-", help="A data file, or - for standard input, a text a line.")
    ],
    overrides: DataOverrides = None,
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", help="File to write: .csv, .jsonl or .conll.", show_default=False),
    ] = None,
    form: Annotated[
        str | None, typer.Option("--format", help="csv, jsonl or conll.", show_default=False)
    ] = None,
    task: TaskFile = None,
    device: Device = "auto",
    precision: Precision = "auto",
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Predict every row of a file, in its order."""

    def work() -> None:
        from bertune.cli.output import write_predictions

        write_predictions(
            out,
            file,
            overrides or [],
            output,
            form,
            quiet=quiet,
            task=task,
            device=device,
            precision=precision,
        )

    _exit(work, debug)


@app.command()
def embed(
    out: Out,
    file: Annotated[
        str, typer.Argument(metavar="FILE|-", help="A data file with a text a row, or - for standard input.")
    ],
    overrides: DataOverrides = None,
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", help="File to write: .npy or .parquet.", show_default=False),
    ] = None,
    form: Annotated[str, typer.Option("--format", help="float32, float16, int8 or binary.")] = "float32",
    normalize: Annotated[bool, typer.Option("--normalize", help="Give vectors length 1.")] = False,
    width: Annotated[
        int | None, typer.Option(min=1, help="Keep the first so many features.", show_default=False)
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="Text to put before each text.", show_default=False)
    ] = None,
    prompt_name: Annotated[
        str | None, typer.Option(help="Name of a prompt of the model.", show_default=False)
    ] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write the vector of every text of a file; a call that was stopped goes on. Without -o: JSON lines."""

    def work() -> None:
        from bertune.cli.output import print_vectors, require_single_process
        from bertune.commands import embed
        from bertune.console import Console
        from bertune.retrieval.corpus import VectorOptions

        require_single_process("embed")

        console, where = Console(quiet), {"device": device, "precision": precision}
        options = VectorOptions(prompt, prompt_name, width, normalize)
        if output is None:
            print_vectors(
                embed.embed_stream(out, file, overrides or [], options=options, console=console, **where)
            )
            return
        count, _ = embed.embed(
            out,
            file,
            output,
            overrides or [],
            options=options,
            dtype=cast(Any, form),
            console=console,
            **where,
        )
        console.info(f"{count} vectors written to {output}")

    _exit(work, debug)


@app.command()
def search(
    out: Out,
    file: Annotated[str, typer.Argument(metavar="CORPUS", help="A data file with a text a row.")],
    queries: Annotated[
        list[str] | None, typer.Argument(metavar="[QUERY]...", help="What to look for.", show_default=False)
    ] = None,
    query_file: Annotated[
        str | None, typer.Option("--queries", help="A data file with a query a row.", show_default=False)
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many rows to find for each query.")] = 10,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="Find near-duplicates in the corpus instead.")
    ] = False,
    threshold: Annotated[float, typer.Option(min=-1, max=1, help="--pairs: least cosine.")] = 0.9,
    most: Annotated[int, typer.Option(min=1, help="--pairs: most pairs to show.")] = 1000,
    index: Annotated[
        str | None, typer.Option(help="Folder of the index; without it CORPUS.index.", show_default=False)
    ] = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Make the index anew.")] = False,
    engine: Annotated[str, typer.Option(help="exact, or usearch (approximate, an extra).")] = "exact",
    read: Annotated[
        list[str] | None, typer.Option(help="How to read CORPUS: data.name=value.", show_default=False)
    ] = None,
    as_json: Json = False,
    device: Device = "auto",
    precision: Precision = "auto",
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Find the texts of a file that are nearest to a query, or to each other; the index is made at the first call."""

    def work() -> None:
        from bertune.cli.output import hit_lines, pair_lines, require_single_process
        from bertune.commands import search
        from bertune.console import Console
        from bertune.errors import ConfigError

        require_single_process("search")
        request = search.SearchRequest(
            out, file, read or [], index, rebuild, Console(quiet), {"device": device, "precision": precision}
        )
        if pairs:
            found, rows = search.near_duplicates(request, threshold, most)
            lines = pair_lines(found, rows, as_json=as_json)
            request.console.info(
                f"{found.total} pairs with a cosine of at least {threshold:g}, {len(found.pairs)} shown"
            )
        else:
            wanted = [
                *(queries or []),
                *(search.read_texts(query_file, console=request.console) if query_file else []),
            ]
            if not wanted:
                raise ConfigError("search: give a query, --queries FILE, or --pairs")
            lines = hit_lines(wanted, search.search(request, wanted, k, cast(Any, engine)), as_json=as_json)
        for line in lines:
            print(line)

    _exit(work, debug)


@app.command()
def inspect(
    file: Annotated[
        str, typer.Argument(metavar="FILE|FOLDER", help="A data file with targets, or the folder of a model.")
    ],
    overrides: DataOverrides = None,
    task: Annotated[str, typer.Option(help="auto, or the name of a task.")] = "auto",
    model: Annotated[str, typer.Option(help="Whose tokenizer shows the tokens.")] = "minilm",
    rows: Annotated[int, typer.Option(min=0, help="How many random rows to show.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Which random rows.")] = 42,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Look at a data file as the model will see it; or at what the folder of a model contains and lacks."""

    def work() -> None:
        from bertune.commands.inspect import inspect, report_lines

        report = inspect(file, overrides or [], task=task, model=model, num_samples=rows, seed=seed)
        print(
            json.dumps(report, ensure_ascii=False, indent=2) if as_json else "\n".join(report_lines(report))
        )

    _exit(work, debug)


@app.command()
def cache(
    what: Annotated[
        str, typer.Argument(metavar="list|clear", help="list shows what is kept on disk, clear removes it.")
    ],
    older_than: Annotated[
        float, typer.Option("--older-than", min=0, help="clear: only what is older than so many days.")
    ] = 0.0,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show or remove the rows and tokens of large data that are kept on disk."""

    def work() -> None:
        from bertune.commands.cache import cache_lines, clear_cache, list_cache

        found = clear_cache(what, older_than) if what != "list" else list_cache()
        print(json.dumps(found, ensure_ascii=False, indent=2) if as_json else "\n".join(cache_lines(found)))

    _exit(work, debug)


@app.command()
def tasks(as_json: Json = False, debug: Debug = False) -> None:
    """List the tasks and what a row of each looks like."""

    def work() -> None:
        from bertune.tasks import load_task, task_names

        found = {name: load_task(name) for name in task_names()}
        if as_json:
            parts = {
                n: {"needed": t.columns.required, "optional": t.columns.optional, "target": t.columns.target}
                for n, t in found.items()
            }
            print(
                json.dumps(
                    {n: {"columns": parts[n], "row": json.loads(t.example_row)} for n, t in found.items()},
                    ensure_ascii=False,
                )
            )
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
