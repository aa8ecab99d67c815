"""report.html: one file that needs no other, whose tables say what its plots show."""

from __future__ import annotations

import html.parser
import math
import re
import sys
from dataclasses import replace

import matplotlib
import pytest
from matplotlib.figure import Figure
from tests.selection.made_studies import EVIL, SMALL_SPACE, SPACE, make_study, wide_space

from bertune.errors import ConfigError
from bertune.selection import study_plots
from bertune.selection.importance import Importance, setting_importance
from bertune.selection.space import Dimension, SearchSpace
from bertune.selection.study_charts import study_charts
from bertune.selection.study_plots import Palette, PlotText, draw, png_plots, svg_plot
from bertune.selection.study_report import StudyFacts, write_study_report
from bertune.selection.trials import Study, Trial

FACTS = StudyFacts(
    name="cola.yaml",
    task="classify",
    model="minilm",
    winner_file="runs/my tune/winner.yaml",
    dev_rows=1043,
    dev_score=0.4711,
    dev_interval=(0.42, 0.52),
    default_trial=0,
    default_dev_score=0.4012,
    seconds=1234.0,
    notes=("Trial 7 ran out of memory <b>twice</b>.",),
)
VOID = {"meta", "path", "use", "br", "link", "img"}


class Page(html.parser.HTMLParser):
    """Reads a page: tags that do not match are an error; tables are kept as texts."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.headings: list[str] = []
        self.summaries = 0
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in {"href", "src", "xlink:href"}:
                self.links.append(value)
        if tag not in {"meta"}:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in {"td", "th"}:
            self.tables[-1][-1].append("")
        elif tag == "h2":
            self.headings.append("")
        self.summaries += tag == "summary"

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in {"td", "th"}:
            self.tables[-1][-1][-1] += data
        elif self.open and self.open[-1] == "h2":
            self.headings[-1] += data


def write(folder, study, space=SPACE, facts=FACTS):
    notes: list[str] = []
    path = write_study_report(folder, study, space, setting_importance(study, space), facts, notes.append)
    source = path.read_text(encoding="utf-8")
    return source, Page(source), notes


def test_the_parts_of_a_report(tmp_path):
    study = make_study(20)
    source, page, notes = write(tmp_path, study)
    assert notes == []
    assert page.headings == [
        "Which number is which", "Best settings", "What was searched", "All trials",
        "Importance of each setting", "Score by trial", "Score while trials train", "Score by setting",
    ]  # fmt: skip
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()) == [
        "plots/curves.png", "plots/history.png", "plots/importance.png", "plots/slices.png", "report.html",
    ]  # fmt: skip
    best = study.best
    for shown in (
        "bertune train &#x27;runs/my tune/winner.yaml&#x27;",
        "<div class=number>0.4711</div>",
        f"<div class=number>{best.score:.4f}</div>",
        f"<div class=number>{study.optimistic_score:.4f}</div>",
        "95% interval 0.4200 to 0.5200",
        f"The dev score differs by {0.4711 - study.optimistic_score:+.4f}",
        "684 training rows and scored on 171 others. The 1043 dev rows took no part",
    ):
        assert shown in source
    assert page.tables[0] == [
        ["", "untuned", "tuned", "difference"],
        ["dev rows (honest)", "0.4012", "0.4711", "+0.0699"],
        [
            "rows of the search", f"{study.trials[0].score:.4f}", f"{best.score:.4f}",
            f"{best.score - study.trials[0].score:+.4f}",
        ],
    ]  # fmt: skip
    winner = {row[0]: row[1:] for row in page.tables[1]}
    assert winner["train.learning_rate"] == ["4.389e-5", "0.0003414"]
    assert page.tables[2][1:3] == [["train.learning_rate", "1e-6 to 0.001 (log)"], ["train.epochs", "1 to 6"]]
    assert page.tables[2][5] == ["options.focal_gamma", "0.5 to 5; where options.loss is focal"]


def test_all_trials_are_there_best_first(tmp_path):
    study = make_study(20)
    _, page, _ = write(tmp_path, study)
    header, *rows = page.tables[3]
    assert header[:5] == ["trial", "state", "mcc", "time", "steps"] and header[-1] == "reason"
    assert sorted(int(row[0]) for row in rows) == list(range(20))
    scores = [float(row[2]) for row in rows if row[1] == "complete"]
    assert scores == sorted(scores, reverse=True) and int(rows[0][0]) == study.best.number
    by_number = {int(row[0]): dict(zip(header, row, strict=True)) for row in rows}
    for trial in study.trials:
        assert by_number[trial.number]["epochs"] == str(trial.settings["train.epochs"])
        assert by_number[trial.number]["reason"] == trial.reason


@pytest.mark.parametrize(("count", "space"), [(3, SPACE), (200, wide_space())], ids=["small", "large"])
def test_a_report_needs_no_other_file_and_is_small(tmp_path, count, space):
    source, page, _ = write(tmp_path, make_study(count, space), space)
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", source)
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert len(page.ids) == len(set(page.ids))
    assert set(re.findall(r"url\(#([^)]+)\)", source)) <= set(page.ids)
    assert not page.tags & {"link", "img", "iframe", "object"}
    assert len(source.encode()) < 1_000_000
    assert page.summaries == source.count("<figure>") == source.count("<svg ")


def test_nothing_of_the_settings_becomes_html(tmp_path):
    space = SearchSpace((*SPACE.dimensions, Dimension(f"options.{EVIL}", "choice", (EVIL, '"><img src=x>'))))
    study = make_study(12, space, states="ccccccccccpf")
    study = replace(
        study,
        metric=EVIL,
        trials=tuple(
            replace(t, reason=f"{EVIL}\x1b[31m" if t.state == "failed" else "") for t in study.trials
        ),
    )
    facts = replace(FACTS, name=EVIL, model=EVIL, task=EVIL, winner_file=EVIL, notes=(EVIL,))
    source, page, _ = write(tmp_path, study, space, facts)
    assert source.count("<script>") == source.count("</script>") == 1
    assert "alert(1)" in source and "<img" not in source and "<b>" not in source and "\x1b" not in source
    assert "img" not in page.tags


def points_of(axes):
    return sorted((x, y) for line in axes.lines for x, y in zip(*line.get_data(), strict=True))


@pytest.mark.parametrize("higher", [True, False])
def test_a_plot_shows_the_numbers_of_its_table(higher):
    study = make_study(30, higher_is_better=higher)
    charts = study_charts(study, SPACE, setting_importance(study, SPACE))
    assert [chart.kind for chart in charts] == ["history", "importance", *["slice"] * 7, "curves"]
    drawn = {}
    for chart in charts:
        axes = Figure().subplots()
        draw(chart, axes, PlotText(()), Palette())
        drawn[chart.title] = chart, axes

    chart, axes = drawn["Score by trial"]
    lines = {line.get_label(): line for line in axes.lines}
    for state in ("complete", "pruned"):
        shown = list(zip(*lines[state].get_data(), strict=True))
        assert shown == [(n, s) for n, kind, s, _ in chart.rows if kind == state]
    assert (
        list(lines["best so far"].get_ydata()) == [row[3] for row in chart.rows] == list(study.best_so_far())
    )
    assert list(lines["failed"].get_xdata()) == [t.number for t in study.trials if t.state == "failed"]

    chart, axes = drawn["Importance of each setting"]
    assert [bar.get_width() for bar in axes.patches] == [share for _, share in chart.rows][::-1]

    chart, axes = drawn["learning_rate"]
    assert axes.get_xscale() == "log"
    complete = [(t.settings["train.learning_rate"], t.score, t.number) for t in study.complete]
    assert list(chart.rows) == sorted(complete)
    assert list(zip(*axes.lines[0].get_data(), strict=True)) == [row[:2] for row in chart.rows]
    assert list(axes.lines[1].get_ydata()) == [study.best.score]

    chart, axes = drawn["batch_size"]
    assert chart.categories == ("8", "16", "32")
    shown = [(chart.categories[round(x)], y) for x, y in zip(*axes.lines[0].get_data(), strict=True)]
    assert shown == [row[:2] for row in chart.rows]

    chart, axes = drawn["Score while trials train"]
    curves = {tuple(y for y in line.get_ydata() if not math.isnan(y)) for line in axes.lines}
    assert curves == {t.evaluations for t in study.trials if t.evaluations}
    assert curves == {tuple(v for v in row[2:] if v is not None) for row in chart.rows}


def test_the_tables_of_the_page_are_those_of_the_charts(tmp_path):
    study = make_study(20)
    _, page, _ = write(tmp_path, study)
    tables = {tuple(table[0]): table[1:] for table in page.tables}
    history = tables["trial", "state", "mcc", "best so far"]
    for row, trial, best in zip(history, study.trials, study.best_so_far(), strict=True):
        assert row[:2] == [str(trial.number), trial.state] and row[3] == f"{best:.4f}"
        assert row[2] == (f"{trial.score or trial.evaluations[-1]:.4f}" if trial.evaluations else "-")
    shares = setting_importance(study, SPACE).shares
    assert tables["setting", "share"] == [[n.split(".")[-1], f"{s:.1%}"] for n, s in shares.items()]
    epochs = sorted((t.settings["train.epochs"], t.score, t.number) for t in study.complete)
    assert tables["epochs", "mcc", "trial"] == [[str(e), f"{s:.4f}", str(n)] for e, s, n in epochs]


EDGES = {
    "none": make_study(0, SMALL_SPACE),
    "one": make_study(1, SMALL_SPACE, states="c"),
    "failed": make_study(5, SMALL_SPACE, states="fffff"),
    "pruned": make_study(5, SMALL_SPACE, states="ppppp"),
    "running": make_study(1, SMALL_SPACE, states="r"),
    "same": make_study(6, SMALL_SPACE, states="cccccc", score=lambda s: 0.5),
    "not finite": make_study(6, SMALL_SPACE, states="cccccc", score=lambda s: math.nan),
    "lower is better": make_study(12, SMALL_SPACE, states="ccccccccpppf", higher_is_better=False),
    "huge": make_study(6, SMALL_SPACE, states="cccccc", score=lambda s: 1e12 * s["train.learning_rate"]),
    "outside": Study(
        (Trial(0, {"train.learning_rate": 0, "x.y": {"a": [1]}}, "complete", 0.5, {}, (math.inf,)),),
        "f1", True, (8, 2), 3,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EDGES)
def test_studies_with_little_in_them(tmp_path, name):
    study = EDGES[name]
    source, page, notes = write(tmp_path, study, SMALL_SPACE)
    assert notes == []
    assert page.headings[0] == ("Result" if study.best is None else "Which number is which")
    assert ("No trial ran to its end" in source) == (study.best is None)
    assert "nan" not in re.sub(r"<style>.*?</style>|<script>.*?</script>", "", source, flags=re.S)


def test_without_facts_a_report_says_so(tmp_path):
    source, page, _ = write(tmp_path, make_study(4, SMALL_SPACE), SMALL_SPACE, StudyFacts())
    assert "There is none: the best settings were not trained again, or there are no dev rows." in source
    assert "card honest" not in source and page.tables[0][0] == ["setting", "trial 0"]


def test_failed_trials_say_why_at_the_top(tmp_path):
    source, _, _ = write(tmp_path, make_study(5, SMALL_SPACE, states="ffpff"), SMALL_SPACE)
    assert "<p>4 failed: out of memory: 2 GiB asked</p>" in source


def test_without_matplotlib_there_are_tables_and_a_note(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    source, page, notes = write(tmp_path, make_study(20))
    (note,) = notes
    assert note.startswith("plots: none are drawn; ") and "pip install 'bertune[tune]'" in note
    assert "pip install &#x27;bertune[tune]&#x27;" in source and "<svg" not in source
    assert not (tmp_path / "plots").exists()
    assert ["trial", "state", "mcc", "best so far"] in [table[0] for table in page.tables]


def test_matplotlib_stays_as_it_was(tmp_path):
    before = dict(matplotlib.rcParams)
    pyplot = "matplotlib.pyplot" in sys.modules
    write(tmp_path, make_study(6, SMALL_SPACE), SMALL_SPACE)
    assert dict(matplotlib.rcParams) == before
    assert ("matplotlib.pyplot" in sys.modules) == pyplot


def test_the_same_study_gives_the_same_page(tmp_path):
    pages = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        pages.append(write(tmp_path / name, make_study(6, SMALL_SPACE), SMALL_SPACE)[0])
    assert pages[0] == pages[1]


def test_characters_without_a_font_are_codes_and_a_note(monkeypatch):
    monkeypatch.setattr(study_plots, "CJK_FONTS", ())
    study = make_study(8, states="c" * 8)
    notes: list[str] = []
    charts = study_charts(study, SPACE, Importance())
    png_plots(charts, notes.append)
    (note,) = notes
    assert "'好差评'" in note and "install a font" in note
    labels = next(i for i, chart in enumerate(charts) if chart.title == "labels")
    assert "好评" in svg_plot(charts[labels], "x")


def test_a_font_with_chinese_is_taken_where_there_is_one(monkeypatch):
    monkeypatch.setattr(study_plots, "_characters", lambda families: frozenset(range(0x110000)))
    notes: list[str] = []
    study = make_study(8, states="c" * 8)
    assert png_plots(study_charts(study, SPACE, Importance()), notes.append).keys() == {
        "history.png", "slices.png", "curves.png",
    }  # fmt: skip
    assert notes == []


def test_texts_are_shortened_and_a_dollar_is_no_formula():
    text = PlotText((), _known=frozenset(map(ord, "$_x.^\\{}u4f60")))
    assert text("$x_x^$") == "$x_x^$"
    assert text("你x") == "\\u4f60x" and text.missing == {"你"}
    assert text("x" * 40, 12) == "xxxxx...xxxx"


def test_a_dollar_in_a_value_is_drawn():
    space = SearchSpace((Dimension("options.x", "choice", ("$a_{$", "\\frac")),))
    charts = study_charts(
        make_study(6, space, states="c" * 6, score=lambda s: len(s["options.x"])), space, Importance()
    )
    assert png_plots(charts, print)
    assert "$a_{$" in svg_plot(charts[1], "x")


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "plots").write_text("a file")
    with pytest.raises(ConfigError, match=r"out: .* cannot be written"):
        write(tmp_path, make_study(4, SMALL_SPACE), SMALL_SPACE)
    assert not (tmp_path / "report.html").exists()
