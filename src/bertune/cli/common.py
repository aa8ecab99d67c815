"""What every verb shares: errors to exit codes, and where output goes."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

from bertune.errors import BertuneError
from bertune.types import Scores

DONE, OUR_BUG, YOUR_INPUT, CHECK_FAILED = 0, 1, 2, 3


def guarded(work: Callable[[], object], *, debug: bool) -> int:
    """Run a verb; return its exit code. An error of the user's is one line, one of ours shows where it happened."""
    try:
        work()
    except BertuneError as error:
        if debug:
            traceback.print_exc()
        print(f"bertune: {error}", file=sys.stderr)
        return YOUR_INPUT
    except KeyboardInterrupt:
        print("bertune: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `bertune predict ... | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    return DONE


def score_lines(scores: Scores, loss: float, num_cut: int) -> list[str]:
    """Lay scores out for reading: figures, labels, confusion matrix."""
    from bertune.talk import aligned

    figures = []
    for name, value in scores.values.items():
        pair = scores.intervals.get(name)
        figures.append([name, f"{value:.4f}", f"95 % interval {pair[0]:.4f} to {pair[1]:.4f}" if pair else ""])
    lines = aligned(["figure", "value", ""], [*figures, ["loss", f"{loss:.4f}", ""]])
    if scores.per_label:
        names = ("precision", "recall", "f1")
        rows = [[label, *(f"{v[n]:.4f}" for n in names), str(v["support"])] for label, v in scores.per_label.items()]
        lines += ["", *aligned(["label", *names, "rows"], rows)]
    if scores.confusion:
        labels = list(scores.confusion)
        rows = [[label, *(str(scores.confusion[label][p]) for p in labels)] for label in labels]
        lines += ["", "rows by gold label (down) and predicted label (across):", *aligned(["", *labels], rows)]
    if num_cut:
        lines += ["", f"{num_cut} rows were longer than max_length and were cut"]
    return lines


def predict_to(
    out: str, file: str, overrides: list[str], output: str | None, form: str | None, *, quiet: bool, **where: str | None
) -> None:
    """Predict a file and write the result to a file or to standard output."""
    from bertune import run
    from bertune.ship import output as results
    from bertune.talk import Talk

    talk = Talk(quiet)
    results.format_of(output, form, "")  # a name that tells nothing is refused before any work
    found = run.predict(out, file, overrides, talk=talk, **where)
    kind = results.format_of(output, form, found.format)
    with results.opened(output, sys.stdout) as target:
        if kind == "csv":
            count = results.write_csv(target, found.header, found.results, found.joiner)
        else:
            count = (results.write_conll if kind == "conll" else results.write_jsonl)(target, found.results)
    talk.say(f"{count} rows predicted{f', written to {output}' if output else ''}")
