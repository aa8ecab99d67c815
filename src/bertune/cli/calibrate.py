"""`bertune calibrate` on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bertune.cli import options as opt
from bertune.cli.output import exit_guarded, print_json
from bertune.errors import ConfigError
from bertune.files import expand_user

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bertune.metrics.calibration import CalibrationFigures, ReliabilityBin
    from bertune.tasks.base.calibration import CalibrationReport
    from bertune.types import JSON

SHOWN_COVERAGES = (0.8, 0.9, 0.95)
FIGURE_NAMES = {
    "nll": "negative log-likelihood",
    "brier": "Brier score",
    "ece": "expected calibration error",
    "ece_adaptive": "  with bins of equally many rows",
}
_MOST_THRESHOLDS = 20

CalibrationFile = Annotated[
    str | None,
    typer.Argument(
        metavar="FILE",
        help="A data file with targets, on which the model was not trained.",
        show_default=False,
        parser=expand_user,
    ),
]
Method = Annotated[
    str,
    typer.Option(help="auto, temperature (one label a row), platt (several), or none: take it away."),
]
TargetPrecision = Annotated[
    float | None,
    typer.Option(help="Choose the lowest threshold with this precision on FILE.", show_default=False),
]
Cost = Annotated[
    list[str] | None,
    typer.Option(
        help="Choose the threshold with the least cost: false_positive=1, false_negative=5; can be repeated.",
        show_default=False,
    ),
]


def calibrate(  # noqa: PLR0913  (the options of a command)
    model: opt.Model,
    file: CalibrationFile = None,
    overrides: opt.DataOverrides = None,
    method: Method = "auto",
    target_precision: TargetPrecision = None,
    cost: Cost = None,
    as_json: opt.Json = False,
    task: opt.TaskFile = None,
    model_code: opt.ModelCode = "never",
    device: opt.Device = "auto",
    precision: opt.Precision = "auto",
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> None:
    """Make the probabilities of a model true, on a file with targets.

    Learns a temperature or Platt scaling, thresholds, and what predict --coverage needs. Saves it in MODEL.
    """

    def work() -> None:
        from bertune.cli.output import is_main_process
        from bertune.commands.calibrate import calibrate
        from bertune.console import Console

        report = calibrate(
            model,
            file,
            overrides or [],
            method=method,
            target_precision=target_precision,
            costs=parse_costs(cost) if cost else None,
            device=device,
            precision=precision,
            model_code=model_code,
            task=task,
            console=Console(quiet or not is_main_process()),
        )
        if not is_main_process():
            return
        if as_json:
            print_json(report_to_json(report))
        else:
            print("\n".join([*report_lines(report), f"saved in {model}"]))

    exit_guarded(work, debug)


def parse_costs(given: Sequence[str]) -> dict[str, float]:
    """Return costs by name.

    Raises:
        ConfigError: one is not written as name=number, or is given twice.

    >>> parse_costs(["false_positive=1", "false_negative=5"])
    {'false_positive': 1.0, 'false_negative': 5.0}
    """
    costs: dict[str, float] = {}
    for text in given:
        name, _, value = (part.strip() for part in text.partition("="))
        try:
            number = float(value)
        except ValueError:
            raise ConfigError(
                f"--cost {text!r}: write a name and a number, as --cost false_positive=1 --cost "
                "false_negative=5"
            ) from None
        if name in costs:
            raise ConfigError(f"--cost {text!r}: {name} is given twice")
        costs[name] = number
    return costs


def report_lines(report: CalibrationReport) -> list[str]:
    """Format a report: what was learnt, figures, reliability, thresholds."""
    from bertune.console import aligned
    from bertune.tasks.base.calibration import IntervalCalibration, LabelCalibration

    learnt = report.calibration
    text = learnt.describe_learnt() if isinstance(learnt, LabelCalibration) else report.describe()
    lines = [f"calibration: {text}"]
    if isinstance(learnt, IntervalCalibration):
        rows = [[f"{c:g}", width] for c, width in _half_widths(learnt).items()]
        return [*lines, "", *aligned(["coverage", "prediction +-"], rows)]
    if report.before is not None:
        lines += ["", *_figure_lines(report.before, report.after)]
        lines += ["", *_table_lines(report)]
    if report.after is not None:
        lines += ["after: each half of the rows with what was learnt on the other half"]
    if report.thresholds:
        shown = list(report.thresholds.items())[:_MOST_THRESHOLDS]
        lines += ["", *aligned(["label", "threshold"], [[label, f"{t:.6g}"] for label, t in shown])]
        if len(shown) < len(report.thresholds):
            lines.append(f"... ({len(report.thresholds)} in all)")
    return [*lines, ""]


def _half_widths(calibration: object) -> dict[float, str]:
    import math

    from bertune.metrics.conformal import rows_needed
    from bertune.tasks.base.calibration import IntervalCalibration

    if not isinstance(calibration, IntervalCalibration):
        return {}
    widths = {c: calibration.conformal.quantile(c) for c in SHOWN_COVERAGES}
    return {c: f"{w:.4g}" if math.isfinite(w) else f"needs {rows_needed(c)} rows" for c, w in widths.items()}


def _figure_lines(before: CalibrationFigures, after: CalibrationFigures | None) -> list[str]:
    from bertune.console import aligned

    old, new = before.to_json(), after.to_json() if after else {}
    rows = [[title, f"{old[n]:.4f}", f"{new[n]:.4f}" if new else ""] for n, title in FIGURE_NAMES.items()]
    return aligned(["figure", "before", "after" if new else ""], rows)


def _table_lines(report: CalibrationReport) -> list[str]:
    """Format the reliability tables side by side."""
    from bertune.console import aligned

    before, after = ({b.low: b for b in table} for table in (report.table_before, report.table_after))
    header = ["confidence", "rows", "mean", "right", *(["rows after", "mean", "right"] if after else [])]
    bins = {**after, **before}
    rows = [
        [f"{bins[low].low:.2f} to {bins[low].high:.2f}", *_cells(before.get(low))]
        + (_cells(after.get(low)) if after else [])
        for low in sorted(bins)
    ]
    return aligned(header, rows)


def _cells(b: ReliabilityBin | None) -> list[str]:
    return ["", "", ""] if b is None else [str(b.rows), f"{b.confidence:.3f}", f"{b.accuracy:.3f}"]


def report_to_json(report: CalibrationReport) -> JSON:
    """Return a report as JSON values, without the scores of rows."""
    from dataclasses import asdict

    learnt = {} if report.calibration is None else report.calibration.to_json()
    for name in ("conformal", "before", "after", "thresholds"):
        learnt.pop(name, None)
    return {
        "method": "none",
        **learnt,
        "thresholds": report.thresholds,
        "before": report.before and report.before.to_json(),
        "after": report.after and report.after.to_json(),
        "reliability_before": [asdict(b) for b in report.table_before],
        "reliability_after": [asdict(b) for b in report.table_after],
        "intervals": {f"{c:g}": w for c, w in _half_widths(report.calibration).items()},
    }
