"""`bertune compare` on the command line: its arguments, and tables for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bertune.cli import options as opt
from bertune.cli.output import exit_guarded, print_json
from bertune.files import expand_user

if TYPE_CHECKING:
    from bertune.inference.comparison import ComparedModel, Comparison, LabelDifference, PairComparison

MOST_LABELS = 10
"""Labels of a pair that are shown on a terminal."""
_WIDTH, _NAME_WIDTH, _LABEL_WIDTH = 80, 36, 24

Compared = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL MODEL... FILE",
        help="Two models or more; then a data file with targets, and how to read it (data.name=value).",
        show_default=False,
    ),
]
DisagreementsFile = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        help="A file for the rows on which models differ: .jsonl, .csv or .tsv.",
        show_default=False,
        parser=expand_user,
    ),
]


def compare(  # noqa: PLR0913  (the options of the command)
    compared: Compared,
    output: DisagreementsFile = None,
    as_json: opt.Json = False,
    task: opt.TaskFile = None,
    model_code: opt.ModelCode = "never",
    device: opt.Device = "auto",
    precision: opt.Precision = "auto",
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> None:
    """Test whether models differ on the same rows of a file."""

    def work() -> None:
        from bertune.cli.output import is_main_process
        from bertune.commands.compare import compare
        from bertune.console import Console

        models, file, overrides = split_arguments(compared)
        result = compare(
            models,
            file,
            overrides,
            output=output,
            device=device,
            precision=precision,
            model_code=model_code,
            task=task,
            console=Console(quiet or not is_main_process()),
        )
        if not is_main_process():
            return
        if as_json:
            print_json(result.to_json())
        else:
            print("\n".join(comparison_lines(result)))

    exit_guarded(work, debug)


def split_arguments(words: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Return the models, the file in a list (empty where the last path is a folder), and the settings.

    A setting has a "=", and is no path that exists.

    >>> split_arguments(["a", "b", "dev.csv", "data.format=csv"])
    (['a', 'b'], ['dev.csv'], ['data.format=csv'])
    """
    overrides = [word for word in words if "=" in word and not Path(expand_user(word)).exists()]
    paths = [word for word in words if word not in overrides]
    if paths and not Path(expand_user(paths[-1])).is_dir():
        return paths[:-1], paths[-1:], overrides
    return paths, [], overrides


def comparison_lines(comparison: Comparison) -> list[str]:
    """Format a comparison: the models, their figures, and each pair of them."""
    letters = {model.name: _letter(n) for n, model in enumerate(comparison.models)}
    lines = [*_model_lines(comparison, letters), *_figure_lines(comparison.models, letters)]
    for pair in comparison.pairs:
        lines += ["", *_pair_lines(pair, comparison, letters)]
    cut = [model for model in comparison.models if model.num_truncated_rows]
    if cut:
        lines.append("")
    for model in cut:
        rows = _count(model.num_truncated_rows, "rows")
        lines.append(f"{letters[model.name]}: {rows} longer than max_length, and cut")
    if comparison.output is not None:
        count = comparison.num_disagreements
        lines += ["", f"{_count(count, 'rows')} on which models differ, written to {comparison.output}"]
    return lines


def _letter(number: int) -> str:
    return chr(ord("A") + number) if number < 26 else f"M{number + 1}"


def _model_lines(comparison: Comparison, letters: dict[str, str]) -> Iterator[str]:
    """Yield the name and the main score of each model."""
    from bertune.console import aligned

    rows = []
    for model in comparison.models:
        interval = model.scores.intervals.get(comparison.metric)
        shown = f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else ""
        value = f"{model.scores.values[comparison.metric]:.4f}"
        rows.append([f"{letters[model.name]}  {_cut(model.name, _NAME_WIDTH)}", value, shown])
    yield from aligned(["model", comparison.metric, "95 % interval"], rows)


def _figure_lines(models: Sequence[ComparedModel], letters: dict[str, str]) -> Iterator[str]:
    """Yield the other figures, with a column a model; many models in several tables."""
    from bertune.console import aligned

    names = [name for name in models[0].scores.values if name != models[0].scores.main_metric]
    if not names:
        return
    size = (_WIDTH - max(map(len, names))) // 10
    for start in range(0, len(models), size):
        part = models[start : start + size]
        rows = [[name, *(f"{model.scores.values[name]:8.4f}" for model in part)] for name in names]
        yield ""
        yield from aligned(["figure", *(letters[model.name] for model in part)], rows)


def _pair_lines(pair: PairComparison, comparison: Comparison, letters: dict[str, str]) -> Iterator[str]:
    """Yield the difference of two models, the tests, and where labels differ."""
    a, b = letters[pair.a], letters[pair.b]
    main, count = pair.main, _count(comparison.num_units, comparison.unit)
    yield f"{b} - {a}: {comparison.metric} {main.difference:+.4f}"
    if main.interval is not None and main.p_value is not None:
        low, high = main.interval
        yield f"  95 % interval  {low:+.4f} to {high:+.4f} ({main.num_resamples} resamples)"
        yield f"  p              {_p(main.p_value, pair.p_holm, comparison)}"
        if pair.better is not None:
            verdict = f"{letters[pair.better]} is better ({_cut(pair.better, _NAME_WIDTH)})"
        else:
            verdict = f"no difference shown on {count}"
        yield f"  verdict        {verdict}"
    else:
        reason = "of one row" if comparison.num_units < 2 else f"of {comparison.metric}"
        yield f"  verdict        none: {reason} there is no test"
    yield from _test_lines(pair, comparison, a, b)
    if comparison.unit != "texts":
        yield f"  disagree       {_count(pair.num_disagreements, 'rows')} of {comparison.num_rows}"
    yield from _label_lines(pair.per_label, a, b)


def _test_lines(pair: PairComparison, comparison: Comparison, a: str, b: str) -> Iterator[str]:
    """Yield McNemar's test with its counts, or the test of errors."""
    if (test := pair.mcnemar) is not None:
        kind = "exact" if test.exact else "chi-square"
        yield f"  McNemar        p {_p(test.p_value, pair.test_p_holm, comparison)}, {kind}"
        yield (
            f"                 both right {test.both_right}, only {a} {test.only_a}, "
            f"only {b} {test.only_b}, both wrong {test.both_wrong}"
        )
    elif (errors := pair.error_test) is not None:
        yield f"  Wilcoxon       p {_p(errors.p_value, pair.test_p_holm, comparison)}, {pair.error_name}"
        yield (
            f"                 smaller by {a} {errors.a_smaller}, by {b} {errors.b_smaller}, "
            f"equal {errors.equal}"
        )


def _label_lines(labels: Sequence[LabelDifference], a: str, b: str) -> Iterator[str]:
    """Yield the F1 of labels, where the difference is largest."""
    from bertune.console import aligned

    if not labels:
        return
    rows = []
    for label in labels[:MOST_LABELS]:
        interval = f"{label.interval[0]:+.4f} to {label.interval[1]:+.4f}" if label.interval else ""
        name = _cut(label.label, _LABEL_WIDTH)
        values = f"{label.f1_a:.4f}", f"{label.f1_b:.4f}", f"{label.difference:+.4f}"
        rows.append([name, *values, interval, str(label.support)])
    table = aligned(["F1 of", a, b, f"{b} - {a}", "95 % interval", "gold"], rows)
    yield from (f"  {line}" for line in table)
    if len(labels) > MOST_LABELS:
        yield f"  ... {len(labels)} labels in all: --json"


def _p(p_value: float, corrected: float | None, comparison: Comparison) -> str:
    """Format a p-value, and the corrected one where there are several pairs."""
    shown = "< 0.0001" if p_value < 0.0001 else f"{p_value:.4f}"
    if len(comparison.pairs) == 1 or corrected is None:
        return shown
    return f"{shown}, {corrected:.4f} for {len(comparison.pairs)} pairs (Holm)"


def _count(number: int, unit: str) -> str:
    """Write a number of rows.

    >>> _count(1, "rows"), _count(2, "queries"), _count(1, "queries")
    ('1 row', '2 queries', '1 query')
    """
    single = {"queries": "query"}.get(unit, unit.removesuffix("s"))
    return f"{number} {single if number == 1 else unit}"


def _cut(text: str, width: int) -> str:
    """Return the end of a text that is too wide for its column, in one line."""
    from bertune.console import display_width

    text = " ".join(text.split())
    if display_width(text) <= width:
        return text
    while display_width(text) > width - 3:
        text = text[1:]
    return f"...{text}"
