"""What every verb shares: errors to exit codes, and where output goes."""

from __future__ import annotations

import math
import os
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from bertune.errors import BertuneError, ConfigError, Interrupted
from bertune.types import JSON, Scores

if TYPE_CHECKING:
    from bertune.retrieval.search import Hit, NearDuplicates

DISCONNECT_SIGNS = (
    "Connection closed",
    "Connection reset",
    "Broken pipe",
    "NCCL",
    "Socket Timeout",
    "timed out",
)
"""What torch.distributed says when another process is gone."""

EXIT_OK, EXIT_BUG, EXIT_BAD_INPUT, EXIT_CHECK_FAILED = 0, 1, 2, 3


def run_guarded(work: Callable[[], object], *, debug: bool) -> int:
    """Run a verb; return its exit code. An error of the user's is one line, one of ours shows where it happened."""
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
        print(f"bertune: {_process()}another process has ended; what it said is the reason", file=sys.stderr)
        return EXIT_BUG
    except BrokenPipeError:  # `bertune predict ... | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    return EXIT_OK


def is_main_process() -> bool:
    """Tell whether this process is the one that writes, of those that a launcher has started."""
    return os.environ.get("RANK", "0") == "0"


def require_single_process(verb: str) -> None:
    """Refuse to work in several processes.

    Raises:
        ConfigError: a launcher has started them.
    """
    if _process():
        raise ConfigError(
            f"{verb}: works in one process, and {os.environ['WORLD_SIZE']} were started; start it without a launcher"
        )


def _process() -> str:
    """Say which of several processes this is."""
    number = int(os.environ.get("WORLD_SIZE", "1"))
    return f"process {os.environ['RANK']} of {number}: " if number > 1 and "RANK" in os.environ else ""


def score_lines(scores: Scores, loss: float, num_truncated_rows: int) -> list[str]:
    """Lay scores out for reading: figures, labels, confusion matrix."""
    from bertune.console import aligned

    figures = []
    for name, value in scores.values.items():
        pair = scores.intervals.get(name)
        figures.append(
            [name, f"{value:.4f}", f"95 % interval {pair[0]:.4f} to {pair[1]:.4f}" if pair else ""]
        )
    lines = aligned(
        ["figure", "value", ""], [*figures, *([] if math.isnan(loss) else [["loss", f"{loss:.4f}", ""]])]
    )
    if scores.per_label:
        names = ("precision", "recall", "f1")
        rows = [
            [label, *(f"{v[n]:.4f}" for n in names), str(v["support"])]
            for label, v in scores.per_label.items()
        ]
        lines += ["", *aligned(["label", *names, "rows"], rows)]
    if scores.confusion:
        labels = list(scores.confusion)
        rows = [[label, *(str(scores.confusion[label][p]) for p in labels)] for label in labels]
        lines += [
            "",
            "rows by gold label (down) and predicted label (across):",
            *aligned(["", *labels], rows),
        ]
    if num_truncated_rows:
        lines += ["", f"{num_truncated_rows} rows were longer than max_length and were cut"]
    return lines


def write_predictions(
    out: str,
    file: str,
    overrides: list[str],
    output: str | None,
    form: str | None,
    *,
    quiet: bool,
    **where: str | None,
) -> None:
    """Predict a file and write the result to a file or to standard output."""
    from bertune.commands.predict import predict
    from bertune.console import Console
    from bertune.inference import writers

    console = Console(quiet or not is_main_process())
    writers.output_format(output, form, "")  # a name that tells nothing is refused before any work
    found = predict(out, file, overrides, console=console, **where)
    if not is_main_process():
        deque(found.results, maxlen=0)  # it computes its share, and the first one writes
        return
    kind = writers.output_format(output, form, found.format)
    with writers.open_output(output, sys.stdout) as target:
        if kind == "csv":
            count = writers.write_csv(target, found.column_names, found.results, found.label_delimiter)
        else:
            count = (writers.write_conll if kind == "conll" else writers.write_jsonl)(target, found.results)
    console.info(f"{count} rows predicted{f', written to {output}' if output else ''}")


def print_vectors(rows: Iterator[JSON]) -> None:
    """Print rows with their vectors as JSON lines, as they come."""
    import json

    for row in rows:
        print(json.dumps(row, ensure_ascii=False, default=str), flush=True)


def hit_lines(queries: Sequence[str], found: Sequence[Sequence[Hit]], *, as_json: bool) -> Iterator[str]:
    """Lay out what was found: a line a query in JSON, else a line a row under its query."""
    import json

    for query, hits in zip(queries, found, strict=True):
        if as_json:
            rows = [{"row": hit.row + 1, "score": round(hit.score, 6), **hit.raw} for hit in hits]
            yield json.dumps({"query": query, "hits": rows}, ensure_ascii=False, default=str)
            continue
        yield query
        yield from (f"  {hit.score:.4f}  {hit.row + 1:>6}  {row_text(hit.raw)}" for hit in hits)


def pair_lines(pairs: NearDuplicates, rows: dict[int, JSON], *, as_json: bool) -> Iterator[str]:
    """Lay out near-duplicates: a line a pair."""
    import json

    for score, first, second in pairs.pairs:
        if as_json:
            both = {
                "score": round(score, 6),
                "rows": [first + 1, second + 1],
                "texts": [rows[first], rows[second]],
            }
            yield json.dumps(both, ensure_ascii=False, default=str)
        else:
            yield f"{score:.4f}  {first + 1:>6}  {row_text(rows[first])}\n        {second + 1:>6}  {row_text(rows[second])}"


def row_text(raw: JSON) -> str:
    """Return a row of a corpus in one line: its text, or all of it where it has several columns."""
    values = [str(v) for v in raw.values()]
    return " | ".join(values).replace("\n", " ")
