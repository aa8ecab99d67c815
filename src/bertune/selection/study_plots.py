"""Plots of a study by matplotlib: as SVG for a page, as PNG for a folder. No state of pyplot is touched."""

from __future__ import annotations

import io
import logging
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, set_cell_size

from bertune.errors import MissingExtra
from bertune.selection.study_charts import MAX_BARS, Chart
from bertune.selection.trial_text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CJK_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans CJK TC", "Noto Sans SC",
    "Source Han Sans SC", "Source Han Sans CN", "Microsoft YaHei", "PingFang SC", "Hiragino Sans GB",
    "Heiti SC", "SimHei", "SimSun", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback",
    "Arial Unicode MS", "AR PL UMing CN", "AR PL UKai CN", "Noto Serif CJK SC", "Noto Serif CJK JP",
)  # fmt: skip
BASE_FONT = "DejaVu Sans"
MAX_LABEL = 24
WIDE, SMALL = (5.4, 3.3), (3.4, 2.7)
"""Inches of a plot alone, and of one of several slices."""


@dataclass(frozen=True)
class Palette:
    """Colours that people with colour blindness tell apart (Okabe and Ito); shapes differ as well."""

    text: str = "#1b1f24"
    grid: str = "#d8dce0"
    trial: str = "#0072b2"
    best: str = "#d55e00"
    pruned: str = "#8a9199"
    failed: str = "#b0005a"

    def variables(self) -> dict[str, str]:
        """Return what each colour is on a page that has a dark form."""
        names = "grid", "trial", "best", "pruned", "failed"
        return {self.text: "currentColor"} | {getattr(self, name): f"var(--{name})" for name in names}


@dataclass
class PlotText:
    r"""Makes texts that the fonts at hand can draw.

    Attributes:
        families: fonts that are asked in turn.
        missing: characters that none of them has; they are written as escapes such as \u4f60.
    """

    families: tuple[str, ...]
    missing: set[str] = field(default_factory=set)
    _known: frozenset[int] | None = None

    def __call__(self, text: str, most: int = MAX_LABEL) -> str:
        """Return a text to draw, shortened in its middle."""
        text = printable(text)
        if cell_len(text) > most:
            text = set_cell_size(text, most - 7).rstrip() + "..." + text[-4:]
        if self._known is None:
            return text
        lost = {c for c in text if ord(c) not in self._known}
        self.missing |= lost
        return "".join(c.encode("unicode_escape").decode("ascii") if c in lost else c for c in text)


def svg_plot(chart: Chart, name: str) -> str:
    """Draw a chart as SVG for a page: its texts stay texts, its colours follow the page.

    Args:
        chart: what to draw.
        name: no other plot of the page has it.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    with _matplotlib() as families:
        palette = Palette()
        size = SMALL if chart.kind == "slice" else _wide_size(chart)
        figure = _figure(size)
        axes = figure.subplots()
        draw(chart, axes, PlotText(families), palette)
        if chart.kind != "slice":  # the page has a heading
            axes.set_title("", loc="left")
        raw = io.BytesIO()
        figure.savefig(raw, format="svg", transparent=True, metadata=dict.fromkeys(_METADATA))
    return _for_page(raw.getvalue().decode("utf-8"), name, palette)


def png_plots(charts: Sequence[Chart], note: Callable[[str], None]) -> dict[str, bytes]:
    """Draw charts as PNG, all slices as one.

    Args:
        charts: what to draw.
        note: hears of characters for which there is no font.

    Returns:
        The bytes of each picture by its name, such as history.png.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    pictures = {}
    with _matplotlib() as families:
        text = PlotText(families, _known=_characters(families))
        slices = [chart for chart in charts if chart.kind == "slice"]
        for chart in charts:
            if chart.kind != "slice":
                figure = _figure(_wide_size(chart))
                draw(chart, figure.subplots(), text, Palette())
                pictures[f"{chart.kind}.png"] = _png(figure)
        if slices:
            columns = min(len(slices), 3)
            rows = math.ceil(len(slices) / columns)
            figure = _figure((SMALL[0] * columns, SMALL[1] * rows))
            places = list(figure.subplots(rows, columns, squeeze=False).flat)
            for chart, axes in zip(slices, places, strict=False):
                draw(chart, axes, text, Palette())
            for axes in places[len(slices) :]:
                axes.set_visible(False)
            pictures["slices.png"] = _png(figure)
    if text.missing:
        few = "".join(sorted(text.missing)[:10])
        note(
            f"plots: no font has {few!r}, so the PNG files show codes such as \\u4f60; install a font such "
            "as Noto Sans CJK (report.html has the characters)"
        )
    return pictures


def draw(chart: Chart, axes: Axes, text: PlotText, palette: Palette) -> None:
    """Draw a chart into axes of matplotlib."""
    {"history": _history, "importance": _importance, "slice": _slice, "curves": _curves}[chart.kind](
        chart, axes, text, palette
    )
    axes.set_title(text(chart.title, 60), loc="left", color=palette.text)
    axes.tick_params(colors=palette.text, length=0)
    axes.grid(visible=True, color=palette.grid, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in {"left", "bottom"})
        spine.set_color(palette.grid)
    axes.xaxis.label.set_color(palette.text)
    axes.yaxis.label.set_color(palette.text)


def _history(chart: Chart, axes: Axes, text: PlotText, palette: Palette) -> None:
    by_state: dict[str, tuple[list[int], list[float]]] = {}
    for number, state, score, _ in chart.rows:
        xs, ys = by_state.setdefault(state, ([], []))
        xs.append(number)
        ys.append(math.nan if score is None else score)
    looks = {
        "complete": ("o", palette.trial, 0.75, "complete"),
        "pruned": ("x", palette.pruned, 1.0, "pruned"),
        "running": ("D", palette.pruned, 1.0, "running"),
    }
    for state, (marker, color, alpha, label) in looks.items():
        if state in by_state:
            axes.plot(*by_state[state], marker, color=color, alpha=alpha, label=label, markersize=5)
    if "failed" in by_state:
        xs = by_state["failed"][0]
        at_bottom = axes.get_xaxis_transform()  # they have no score
        axes.plot(
            xs, [0.03] * len(xs), "^", color=palette.failed, label="failed", transform=at_bottom, markersize=6
        )
    numbers = [row[0] for row in chart.rows]
    best = [math.nan if row[3] is None else row[3] for row in chart.rows]
    if any(map(math.isfinite, best)):
        axes.plot(
            numbers, best, color=palette.best, drawstyle="steps-post", label="best so far", linewidth=1.8
        )
    axes.set_xlabel("trial")
    axes.set_ylabel(text(chart.metric))
    _whole_numbers(axes)
    axes.margins(y=0.12)
    _legend(axes, palette)


def _importance(chart: Chart, axes: Axes, text: PlotText, palette: Palette) -> None:
    rows = chart.rows[:MAX_BARS][::-1]
    places = range(len(rows))
    axes.barh(places, [share for _, share in rows], color=palette.trial, height=0.65)
    for place, (_, share) in zip(places, rows, strict=True):
        axes.annotate(
            f"{share:.0%}",
            (share, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=palette.text,
            fontsize=9,
        )
    axes.set_yticks(places, [text(name, 32) for name, _ in rows])
    axes.set_xlim(0, max(share for _, share in rows) * 1.12 or 1)
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")


def _slice(chart: Chart, axes: Axes, text: PlotText, palette: Palette) -> None:
    scores = [score for _, score, _ in chart.rows]
    values: list[float] = [value for value, _, _ in chart.rows]
    if chart.categories:
        # Beside each other, not one on the other: always the same way for the same trial.
        values = [
            chart.categories.index(choice) + ((number * 0.618034) % 1 - 0.5) * 0.3
            for choice, _, number in chart.rows
        ]
        most = 12 if len(chart.categories) > 2 else MAX_LABEL - 8
        labels = [text(choice, most) for choice in chart.categories]
        is_long = sum(map(cell_len, labels)) > 28 or len(labels) > 6
        turned: dict[str, Any] = {"rotation": 35, "ha": "right"} if is_long else {}
        axes.set_xticks(range(len(labels)), labels, **turned)
        axes.set_xlim(-0.5, len(labels) - 0.5)
    axes.plot(values, scores, "o", color=palette.trial, alpha=0.65, markersize=4.5, linestyle="")
    for value, score, number in zip(values, scores, [n for _, _, n in chart.rows], strict=True):
        if number == chart.best:
            axes.plot([value], [score], "D", color=palette.best, markersize=6.5)
    if chart.is_log:
        _log_axis(axes, [value for value, _, _ in chart.rows])
    elif not chart.categories:
        _few_numbers(axes, all(isinstance(value, int) for value, _, _ in chart.rows))
    axes.set_ylabel(text(chart.metric))
    axes.margins(y=0.1)


def _curves(chart: Chart, axes: Axes, text: PlotText, palette: Palette) -> None:
    order = sorted(chart.rows, key=lambda row: (row[0] == chart.best, row[1] == "complete", row[0]))
    seen = set()
    alpha = min(max(12 / len(order), 0.15), 0.5)
    look: dict[str, Any]
    for number, state, *scores in order:
        if number == chart.best:
            label, look = "best", {"color": palette.best, "linewidth": 2.4, "marker": "o", "markersize": 4}
        elif state == "complete":
            label, look = state, {"color": palette.trial, "alpha": alpha, "linewidth": 1}
        else:
            label = "pruned" if state == "pruned" else state
            look = {"color": palette.pruned, "alpha": 0.8, "linewidth": 0.9, "linestyle": "--"}
        values = [math.nan if score is None else score for score in scores]
        alone = {"marker": "o", "markersize": 3} if sum(map(math.isfinite, values)) == 1 else {}
        first = {} if label in seen else {"label": label}
        seen.add(label)
        axes.plot(range(1, len(values) + 1), values, **{**look, **alone, **first})
    axes.set_xlabel("evaluation")
    axes.set_ylabel(text(chart.metric))
    _whole_numbers(axes)
    _legend(axes, palette)


def _legend(axes: Axes, palette: Palette) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(
            handles, labels, frameon=False, labelcolor=palette.text, fontsize=9, ncols=len(labels),
            loc="upper right", bbox_to_anchor=(1.0, 1.15), handletextpad=0.4, columnspacing=1.2,
            borderaxespad=0.0,
        )  # fmt: skip


def _whole_numbers(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f}")


def _few_numbers(axes: Axes, is_whole: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=is_whole, min_n_ticks=1))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.4g}")


def _log_axis(axes: Axes, values: Sequence[float]) -> None:
    """Label powers of ten; where fewer than two are in view, 1, 2 and 5 times them."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_xscale("log")
    decades = math.log10(max(values) / min(values)) if values else 0.0
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if decades > 1.5 else (1.0, 2.0, 5.0)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(lambda value, _: _power(value))
    axes.tick_params(axis="x", which="minor", bottom=False)


def _power(value: float) -> str:
    return (f"{value:.0e}" if not 0.01 <= value < 10000 else f"{value:.3g}").replace("e-0", "e-")


def _wide_size(chart: Chart) -> tuple[float, float]:
    return (
        (WIDE[0], max(1.4, 0.8 + 0.3 * min(len(chart.rows), MAX_BARS)))
        if chart.kind == "importance"
        else WIDE
    )


def _figure(size: tuple[float, float]) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained")


def _png(figure: Figure) -> bytes:
    raw = io.BytesIO()
    figure.savefig(raw, format="png", dpi=160, facecolor="white", metadata={"Software": None})
    return raw.getvalue()


@contextmanager
def _matplotlib() -> Iterator[tuple[str, ...]]:
    """Set what plots need while the block runs; give the fonts.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    logger = logging.getLogger("matplotlib")
    before = logger.level
    logger.setLevel(logging.ERROR)  # of the cache of fonts
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of glyphs without a font, which are told once
            try:
                import matplotlib
                import matplotlib.figure
                from matplotlib import font_manager
            except ImportError:
                raise MissingExtra("matplotlib", "tune", "drawing plots") from None
            there = {font.name for font in font_manager.fontManager.ttflist}
            families = (BASE_FONT, *[name for name in CJK_FONTS if name in there][:1])
            plain = {k: v for k, v in matplotlib.rcParamsDefault.items() if "backend" not in k}
            with matplotlib.rc_context({**plain, **_STYLE, "font.family": families}):
                yield families
    finally:
        logger.setLevel(before)


def _characters(families: Sequence[str]) -> frozenset[int]:
    """Return the code points that some font has."""
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    paths = [font_manager.findfont(family) for family in families]
    return frozenset(code for path in paths for code in FT2Font(path).get_charmap())


_STYLE: dict[str, Any] = {
    "text.parse_math": False,  # a "$" in a value is a dollar
    "svg.fonttype": "none",
    "svg.hashsalt": "bertune",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.labelsize": 9,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "axes.formatter.useoffset": False,
}
_METADATA = ("Date", "Creator", "Format", "Type")


def _for_page(svg: str, name: str, palette: Palette) -> str:
    """Return SVG that can stand in a page beside others, in the page's font and colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'\s(xmlns(:\w+)?|version|width|height)="[^"]*"', "", svg, count=5)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.S)  # it would count for the whole page
    svg = re.sub(r' transform="rotate\(-0 [^"]*"', "", svg)
    used = set(re.findall(r'(?:url\(|href=")#([^)"]+)', svg))

    def rename(match: re.Match[str]) -> str:
        return f' id="{name}-{match[1]}"' if match[1] in used else ""

    svg = re.sub(r'\sid="([^"]*)"', rename, svg)
    svg = re.sub(r'(url\(|href=")#', rf"\1#{name}-", svg)
    svg = re.sub(r"font-family: [^;\"]*; ?", "", svg)
    svg = re.sub(r"(-?\d+\.\d\d)\d+", r"\1", svg)
    for color, variable in palette.variables().items():
        svg = svg.replace(color, variable)
    return svg.strip()
