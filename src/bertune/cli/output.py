"""What the commands share: errors as exit codes, and the format of the output."""

from __future__ import annotations

import json
import math
import os
import re
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import typer

from bertune.errors import BertuneError, ConfigError, Interrupted
from bertune.types import JSON

if TYPE_CHECKING:
    from bertune.commands.evaluate import Evaluation, SearchFiles
    from bertune.commands.search import CorpusDuplicates
    from bertune.retrieval.search import Hit
    from bertune.types import Scores

DISCONNECT_SIGNS = (
    "Connection closed",
    "Connection reset",
    "Broken pipe",
    "NCCL",
    "Socket Timeout",
    "timed out",
)
"""Parts of torch.distributed's messages when another process has ended."""

EXIT_OK, EXIT_BUG, EXIT_BAD_INPUT, EXIT_CHECK_FAILED = 0, 1, 2, 3


def run_guarded(work: Callable[[], object], *, debug: bool) -> int:
    """Run a command; return its exit code.

    A `BertuneError` is one line on standard error. Any other exception is a bug, and is raised.
    """
    try:
        work()
    except BertuneError as error:
        if debug:
            traceback.print_exc()
        print(f"bertune: {_process()}{error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except Interrupted as stopped:
        print(f"bertune: {stopped}", file=sys.stderr)
        return 128 + stopped.number
    except KeyboardInterrupt:
        print("bertune: stopped", file=sys.stderr)
        return 130
    except RuntimeError as error:
        if not _process() or not any(sign in str(error) for sign in DISCONNECT_SIGNS):
            raise
        print(f"bertune: {_process()}another process has ended; its message is the reason", file=sys.stderr)
        return EXIT_BUG
    except BrokenPipeError:  # `bertune predict ... | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    return EXIT_OK


def exit_guarded(work: Callable[[], object], debug: bool) -> None:
    """Run a command as `run_guarded` does; end the program where its exit code is not 0."""
    code = run_guarded(work, debug=debug)
    if code:
        raise typer.Exit(code)


def print_json(value: object) -> None:
    """Print a value as indented JSON."""
    print(json.dumps(value, ensure_ascii=False, indent=2))


def is_main_process() -> bool:
    """Tell whether this process writes the output; of several processes the first one does."""
    return os.environ.get("RANK", "0") == "0"


def require_single_process(command: str) -> None:
    """Refuse to run in several processes.

    Raises:
        ConfigError: a launcher has started several.
    """
    if _process():
        raise ConfigError(
            f"{command}: works in one process, and {os.environ['WORLD_SIZE']} were started; "
            "start it without a launcher"
        )


def refuse_idle(reason: str, given: Mapping[str, object]) -> None:
    """Refuse what is given and would have no effect.

    Args:
        reason: why it has none.
        given: by the name of the option, what it is set to; None or an empty list if it is not given.

    Raises:
        ConfigError: something is given.
    """
    idle = [name for name, value in given.items() if value not in (None, [])]
    if idle:
        raise ConfigError(f"{', '.join(idle)}: without effect here, since {reason}; leave it out")


def check_search_options(
    of_pairs: Mapping[str, object], of_queries: Mapping[str, object], *, pairs: bool
) -> None:
    """Check that a search has something to search for, and that every option of the call has an effect.

    Args:
        of_pairs: the options that need --pairs, by name; None where one is not given.
        of_queries: the options that need queries.
        pairs: whether --pairs is given.

    Raises:
        ConfigError: an option has no effect, a query is a setting, or there is nothing to search for.
    """
    if pairs:
        refuse_idle("--pairs compares the rows of CORPUS with each other", of_queries)
        return
    refuse_idle("only --pairs uses it", of_pairs)
    queries, file = cast("list[str] | None", of_queries["QUERY"]), of_queries["--queries"]
    if not file:
        refuse_idle("there is no --queries FILE to read", {"--query-data": of_queries["--query-data"]})
    for text in queries or []:
        if re.match(r"data\.\w+\s*=", text):
            raise ConfigError(f"search: {text!r} is a setting, not a query; for CORPUS type --data {text!r}")
        if not text.strip():
            raise ConfigError("search: a query is empty; give a text")
    if not queries and not file:
        raise ConfigError("search: give a query, --queries FILE, or --pairs")


def search_files(
    corpus: str | None, qrels: str | None, data: list[str] | None, task: str | None
) -> SearchFiles | None:
    """Return the files of `evaluate --corpus --qrels`, or None where neither is given.

    Raises:
        ConfigError: one is given without the other, or something is given that has no effect.
    """
    from bertune.commands.evaluate import SearchFiles

    if corpus is None and qrels is None:
        refuse_idle("there is no --corpus to read", {"--data": data})
        return None
    if corpus is None or qrels is None:
        missing = "--corpus FILE (the documents)" if corpus is None else "--qrels FILE (which are relevant)"
        raise ConfigError(f"evaluate: the scores of a search need {missing} too")
    refuse_idle("a search is scored without a task", {"--task": task})
    return SearchFiles(corpus, qrels, data or [])


def _process() -> str:
    """Return a prefix for messages: which of several processes this is; empty for a single one."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1 or "RANK" not in os.environ:
        return ""
    return f"process {os.environ['RANK']} of {world_size}: "


def score_lines(evaluation: Evaluation) -> list[str]:
    """Format an evaluation: a table of figures, one of labels, and the confusion matrix."""
    from bertune.console import aligned

    scores = evaluation.scores
    figures = []
    for name, value in scores.values.items():
        pair = scores.intervals.get(name)
        interval = f"95 % interval {pair[0]:.4f} to {pair[1]:.4f}" if pair else ""
        figures.append([name, f"{value:.4f}", interval])
    if (baseline := scores.baseline) is not None and scores.main_metric in baseline.values:
        figures.append(["baseline", f"{baseline.values[scores.main_metric]:.4f}", baseline.name])
    if not math.isnan(evaluation.loss):
        figures.append(["loss", f"{evaluation.loss:.4f}", ""])
    lines = aligned(["figure", "value", ""], figures)
    if scores.per_label:
        names = ("precision", "recall", "f1")
        rows = [
            [label, *(f"{values[name]:.4f}" for name in names), str(values["support"])]
            for label, values in scores.per_label.items()
        ]
        lines += ["", *aligned(["label", *names, "rows"], rows)]
    if scores.confusion:
        lines += ["", *_confusion_lines(scores)]
    if evaluation.num_truncated_rows:
        lines += ["", f"{evaluation.num_truncated_rows} rows were longer than max_length and were cut"]
    return lines


def _confusion_lines(scores: Scores) -> list[str]:
    """Format the confusion matrix; of many labels the pairs that are most often confused."""
    from bertune.console import aligned

    labels = list(scores.confusion)
    if len(labels) == len(scores.per_label) and all(
        len(row) == len(labels) for row in scores.confusion.values()
    ):
        rows = [[label, *(str(scores.confusion[label][p]) for p in labels)] for label in labels]
        title = "rows by gold label (down) and predicted label (across):"
        return [title, *aligned(["", *labels], rows)]
    pairs = [(n, gold, p) for gold, row in scores.confusion.items() for p, n in row.items()]
    pairs.sort(key=lambda pair: -pair[0])
    rows = [[gold, predicted, str(count)] for count, gold, predicted in pairs[:20]]
    return ["the labels that are most often confused:", *aligned(["gold", "predicted", "rows"], rows)]


def write_predictions(  # noqa: PLR0913  (the options of `bertune predict`)
    folder: str,
    file: str,
    overrides: list[str],
    output: str | None,
    output_format: str | None,
    *,
    coverage: float | None,
    quiet: bool,
    task: str | None,
    device: str,
    precision: str,
    model_code: str,
) -> None:
    """Predict a file, and write the result to a file or to standard output.

    Raises:
        BertuneError: see `bertune.predict`; or the output cannot be written.
    """
    from bertune.commands.predict import predict
    from bertune.console import Console
    from bertune.inference import writers

    console = Console(quiet or not is_main_process())
    if output_format == "leaderboard":
        source = _leaderboard_source(file, overrides, output)
    else:
        writers.output_format(output, output_format, "")  # refuses a wrong name before any work
    predictions = predict(
        folder,
        file,
        overrides,
        coverage=coverage,
        task=task,
        device=device,
        precision=precision,
        model_code=model_code,
        console=console,
    )
    if not is_main_process():
        deque(predictions.results, maxlen=0)  # computes this process's share; the first one writes
        return
    if output_format == "leaderboard":
        from bertune.catalog.leaderboard import submission_name, write_submission
        from bertune.catalog.sets import split_name

        named_set, _ = split_name(file)
        path = write_submission(named_set, predictions.results, str(output), source)
        console.info(f"{named_set.full_name}: for its leaderboard, written to {path}")
        if path.name != (official := submission_name(named_set, source)):
            console.info(f"note: the leaderboard expects the name {official}")
        return
    chosen_format = writers.output_format(output, output_format, predictions.format)
    with writers.open_output(output, sys.stdout) as target:
        if chosen_format == "csv":
            header, delimiter = predictions.column_names, predictions.label_delimiter
            count = writers.write_csv(target, header, predictions.results, delimiter)
        elif chosen_format == "conll":
            count = writers.write_conll(target, predictions.results, console.info)
        else:
            count = writers.write_jsonl(target, predictions.results)
    console.info(f"{count} rows predicted{f', written to {output}' if output else ''}")


def _leaderboard_source(file: str, overrides: list[str], output: str | None) -> str:
    """Return the test file of a named set; refuse what no leaderboard takes, before any work.

    Raises:
        ConfigError: no named set with a leaderboard, not its test rows, or no place for the file.
    """
    from bertune.catalog.leaderboard import leaderboard_of
    from bertune.catalog.sets import is_set_name, split_name
    from bertune.catalog.use import named_rows
    from bertune.errors import ConfigError

    if not is_set_name(file):
        raise ConfigError(f"--format leaderboard: needs a named set, such as glue:cola, got {file!r}")
    named_set, split = split_name(file)
    name = leaderboard_of(named_set).file_name
    if split not in {"", "test"}:
        raise ConfigError(
            f"{file}: a leaderboard takes predictions of test rows; write {named_set.full_name}"
        )
    if output is None:
        raise ConfigError(f"--format leaderboard: give -o FOLDER, or -o FILE such as -o {name}")
    return named_rows(file, overrides, "test", lambda _: None)[0]


def print_vectors(rows: Iterator[JSON]) -> None:
    """Print rows with their vectors as JSON lines, as they come."""
    import json

    for row in rows:
        print(json.dumps(row, ensure_ascii=False, default=str), flush=True)


def hit_lines(
    corpus: str,
    queries: Sequence[tuple[JSON, str]],
    results: Sequence[Sequence[Hit]],
    *,
    as_json: bool,
) -> Iterator[str]:
    """Format the hits of each query: one JSON line a query, or the query and a line a hit.

    A query is its columns and its text. The columns are printed as JSON only, if there are others than text.
    """
    import json

    for (raw, query), hits in zip(queries, results, strict=True):
        if as_json:
            columns = {"query_row": raw} if len(raw) > 1 else {}
            line = {"query": query, **columns, "hits": [_hit_to_json(hit) for hit in hits]}
            yield json.dumps(line, ensure_ascii=False, default=str)
            continue
        yield query
        yield from (f"  {hit.score:.4f}  {corpus}:{hit.line}  {_row_text(hit.raw)}" for hit in hits)


def _hit_to_json(hit: Hit) -> JSON:
    from bertune.inference.writers import free_column_names

    values = {"row": hit.row + 1, "line": hit.line, "score": round(hit.score, 6)}
    names = free_column_names(hit.raw, values)
    return {**{names[name]: value for name, value in values.items()}, **hit.raw}


def pair_lines(corpus: str, duplicates: CorpusDuplicates, *, as_json: bool) -> Iterator[str]:
    """Format near-duplicates: one JSON line a pair, or a line for each of its rows."""
    import json

    rows, lines = duplicates.rows, duplicates.lines
    for score, first, second in duplicates.pairs:
        if as_json:
            pair = {
                "score": round(score, 6),
                "rows": [first + 1, second + 1],
                "lines": [lines[first], lines[second]],
                "texts": [rows[first], rows[second]],
            }
            yield json.dumps(pair, ensure_ascii=False, default=str)
        else:
            yield f"{score:.4f}  {corpus}:{lines[first]}  {_row_text(rows[first])}"
            yield f"        {corpus}:{lines[second]}  {_row_text(rows[second])}"


def _row_text(raw: JSON) -> str:
    """Return the columns of a row in one line."""
    return " | ".join(str(value) for value in raw.values()).replace("\n", " ")
