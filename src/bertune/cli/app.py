"""The commands, one function each. Heavy imports are inside the functions."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from bertune.cli import options as opt
from bertune.cli.bench import bench
from bertune.cli.calibrate import calibrate
from bertune.cli.compare import compare
from bertune.cli.convert import convert
from bertune.cli.crossval import crossval
from bertune.cli.ensemble import ensemble
from bertune.cli.fill import fill
from bertune.cli.output import exit_guarded, print_json
from bertune.cli.sets import sets
from bertune.cli.trim import trim
from bertune.cli.tune import tune

if TYPE_CHECKING:
    from bertune.commands.evaluate import Evaluation
    from bertune.inference.vectors import VectorDtype
    from bertune.retrieval.search import Engine
    from bertune.types import JSON

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help takes a third less time
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Fine-tune BERT-family encoders: bertune train TASK data.train=FILE, "
    "then bertune predict MODEL FILE.",
    epilog="Exit codes: 0 done, 1 a bug in bertune, 2 something in your input, 3 a check did not pass.",
)


@app.command()
def init(
    task: opt.TaskName, folder: opt.NewFolder = ".", lang: opt.Language = "en", debug: opt.Debug = False
) -> None:
    """Write a run file with every setting explained, and data."""

    def work() -> None:
        from bertune.commands.init import init

        for path in init(task, folder, lang):
            print(path)

    exit_guarded(work, debug)


@app.command()
def train(
    source: opt.RunSource,
    overrides: opt.Overrides = None,
    resume: opt.Resume = False,
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> None:
    """Fine-tune an encoder. The last line printed is the folder."""

    def work() -> None:
        from bertune.cli.output import is_main_process
        from bertune.commands.train import train

        result = train(source, overrides or [], quiet=quiet, resume=resume)
        if is_main_process():
            print(result.folder)

    exit_guarded(work, debug)


@app.command()
def evaluate(
    model: opt.Model,
    file: opt.ScoredFile,
    overrides: opt.DataOverrides = None,
    corpus: opt.ScoredCorpus = None,
    qrels: opt.Qrels = None,
    data: opt.CorpusOverrides = None,
    truncate_dim: opt.TruncateDim = None,
    as_json: opt.Json = False,
    task: opt.TaskFile = None,
    model_code: opt.ModelCode = "never",
    device: opt.Device = "auto",
    precision: opt.Precision = "auto",
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> None:
    """Score a model on a file that has targets.

    With --corpus and --qrels: FILE has queries, and relevant documents are to be found.
    """

    def work() -> None:
        from bertune.cli.output import is_main_process, score_lines, search_files
        from bertune.commands.evaluate import evaluate
        from bertune.console import Console

        console = Console(quiet or not is_main_process())
        evaluation = evaluate(
            model,
            file,
            overrides or [],
            search=search_files(corpus, qrels, data, task),
            truncate_dim=truncate_dim,
            task=task,
            device=device,
            precision=precision,
            model_code=model_code,
            console=console,
        )
        if not is_main_process():
            return
        if as_json:
            print_json(_evaluation_to_json(evaluation))
        else:
            print("\n".join(score_lines(evaluation)))

    exit_guarded(work, debug)


def _evaluation_to_json(evaluation: Evaluation) -> JSON:
    return {
        **evaluation.scores.to_json(),
        "loss": None if math.isnan(evaluation.loss) else evaluation.loss,
        "num_truncated_rows": evaluation.num_truncated_rows,
    }


@app.command()
def predict(
    model: opt.Model,
    file: opt.TextFile,
    overrides: opt.DataOverrides = None,
    output: opt.PredictionsFile = None,
    output_format: opt.PredictionsFormat = None,
    coverage: opt.Coverage = None,
    task: opt.TaskFile = None,
    model_code: opt.ModelCode = "never",
    device: opt.Device = "auto",
    precision: opt.Precision = "auto",
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> None:
    """Predict every row of a file, in its order."""

    def work() -> None:
        from bertune.cli.output import write_predictions

        write_predictions(
            model,
            file,
            overrides or [],
            output,
            output_format,
            coverage=coverage,
            quiet=quiet,
            task=task,
            device=device,
            precision=precision,
            model_code=model_code,
        )

    exit_guarded(work, debug)


@app.command()
def embed(
    model: opt.VectorModel,
    file: opt.TextFile,
    overrides: opt.DataOverrides = None,
    output: opt.VectorsFile = None,
    dtype: opt.Dtype = "float32",
    normalize: opt.Normalize = False,
    truncate_dim: opt.TruncateDim = None,
    prompt: opt.Prompt = None,
    prompt_name: opt.PromptName = None,
    model_code: opt.ModelCode = "never",
    device: opt.Device = "auto",
    precision: opt.Precision = "auto",
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
    old_format: opt.OldFormat = None,  # this and the next are refused by their callbacks
    old_width: opt.OldWidth = None,
) -> None:
    """Write the vector of every text of a file.

    A call that was stopped is continued by the same call. Without -o: JSON lines on standard output.
    """

    def work() -> None:
        from bertune.cli.output import print_vectors, require_single_process
        from bertune.commands.embed import embed, embed_stream
        from bertune.console import Console
        from bertune.retrieval.corpus import VectorOptions

        require_single_process("embed")
        console = Console(quiet)
        options = VectorOptions(prompt, prompt_name, truncate_dim, normalize)
        if output is None:
            print_vectors(
                embed_stream(
                    model,
                    file,
                    overrides or [],
                    options=options,
                    dtype=cast("VectorDtype", dtype),
                    device=device,
                    precision=precision,
                    model_code=model_code,
                    console=console,
                )
            )
            return
        result = embed(
            model,
            file,
            output,
            overrides or [],
            options=options,
            dtype=cast("VectorDtype", dtype),
            device=device,
            precision=precision,
            model_code=model_code,
            console=console,
        )
        console.info(f"{result.num_rows} vectors written to {output}")

    exit_guarded(work, debug)


@app.command()
def search(
    model: opt.VectorModel,
    corpus: opt.CorpusFile,
    queries: opt.Queries = None,
    query_file: opt.QueryFile = None,
    query_data: opt.QueryOverrides = None,
    k: opt.NumHits = None,
    pairs: opt.Pairs = False,
    threshold: opt.Threshold = None,
    max_pairs: opt.MaxPairs = None,
    index: opt.IndexFolder = None,
    rebuild: opt.Rebuild = False,
    engine: opt.SearchEngine = None,
    data: opt.CorpusOverrides = None,
    as_json: opt.Json = False,
    model_code: opt.ModelCode = "never",
    device: opt.Device = "auto",
    precision: opt.Precision = "auto",
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
    old_most: opt.OldMost = None,
    old_read: opt.OldRead = None,
) -> None:
    """Find the texts of a file that are nearest to a query.

    With --pairs: the texts that are nearest to each other. The first call builds an index.
    """

    def work() -> None:
        from bertune.cli.output import check_search_options, hit_lines, pair_lines, require_single_process
        from bertune.commands import search
        from bertune.console import Console

        require_single_process("search")
        of_pairs = {"--threshold": threshold, "--max-pairs": max_pairs}
        of_queries = {"QUERY": queries, "--queries": query_file, "-k": k, "--engine": engine}
        check_search_options(of_pairs, {**of_queries, "--query-data": query_data}, pairs=pairs)
        console = Console(quiet)
        request = search.SearchRequest(
            model,
            corpus,
            data or [],
            index,
            rebuild,
            device=device,
            precision=precision,
            model_code=model_code,
            console=console,
        )
        if pairs:
            least = 0.9 if threshold is None else threshold
            duplicates = search.near_duplicates(request, least, max_pairs or 1000)
            lines = pair_lines(corpus, duplicates, as_json=as_json)
            console.info(
                f"{duplicates.total} pairs with a cosine of at least {least:g}, {len(duplicates.pairs)} shown"
            )
        else:
            rows: list[tuple[JSON, str]] = [({}, text) for text in queries or []]
            if query_file:
                read = search.read_queries(query_file, query_data or [], console)
                rows += [(row.raw, row.text) for row in read]
            texts = [text for _, text in rows]
            hits = search.search(request, texts, k or 10, cast("Engine", engine or "exact"))
            lines = hit_lines(corpus, rows, hits, as_json=as_json)
        for line in lines:
            print(line)

    exit_guarded(work, debug)


@app.command()
def inspect(
    file: opt.InspectedPath,
    overrides: opt.DataOverrides = None,
    task: opt.GuessedTask = "auto",
    model: opt.TokenizerModel = "minilm",
    rows: opt.NumSamples = 5,
    seed: opt.SampleSeed = 42,
    as_json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Look at a data file as a model sees it, or into a model."""

    def work() -> None:
        from bertune.commands.inspect import inspect, report_lines

        report = inspect(file, overrides or [], task=task, model=model, num_samples=rows, seed=seed)
        if as_json:
            print_json(report)
        else:
            print("\n".join(report_lines(report)))

    exit_guarded(work, debug)


@app.command()
def cache(
    action: opt.CacheAction,
    older_than: opt.OlderThan = 0.0,
    as_json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """List or remove the rows and tokens kept on disk."""

    def work() -> None:
        from bertune.cli.output import refuse_idle
        from bertune.commands.cache import cache_lines, clear_cache, list_cache

        if action == "list":
            refuse_idle("list shows everything, and clear uses it", {"--older-than": older_than or None})
        report = list_cache() if action == "list" else clear_cache(action, older_than)
        if as_json:
            print_json(report)
        else:
            print("\n".join(cache_lines(report)))

    exit_guarded(work, debug)


@app.command()
def tasks(as_json: opt.Json = False, debug: opt.Debug = False) -> None:
    """List the tasks and what a row of each looks like."""

    def work() -> None:
        from bertune.tasks import load_task, task_names

        task_classes = {name: load_task(name) for name in task_names()}
        if as_json:
            rows = {
                name: {
                    "columns": {
                        "required": task.columns.required,
                        "optional": task.columns.optional,
                        "target": task.columns.target,
                    },
                    "row": json.loads(task.example_row),
                }
                for name, task in task_classes.items()
            }
            print(json.dumps(rows, ensure_ascii=False))
            return
        for name, task in task_classes.items():
            print(f"{name:10} {(task.__doc__ or '').splitlines()[0]}\n{'':10} {task.example_row}")

    exit_guarded(work, debug)


app.command()(ensemble)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from bertune import __version__

        print(f"bertune {__version__}, Python {sys.version.split()[0]}, {Path(__file__).parents[1]}")
        raise typer.Exit


app.command()(crossval)
app.command()(tune)
app.command()(compare)
app.command()(calibrate)
app.command()(convert)
app.command()(fill)
app.command()(sets)
app.command()(bench)
app.command()(trim)
