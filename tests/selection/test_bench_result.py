"""Numbers and tables of a bench, from records that nobody had to train for."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bertune.cli.bench import result_lines
from bertune.console import display_width
from bertune.selection.bench.plan import BenchPlan, BenchSet, PublishedFigure, Variant
from bertune.selection.bench.records import (
    RunRecord,
    read_predictions,
    read_record,
    write_predictions,
    write_record,
)
from bertune.selection.bench.report import bench_page, markdown_lines
from bertune.selection.bench.result import collect
from bertune.selection.bench.submission import best_seed, write_submissions
from bertune.selection.bench.versus import Versus, compare_variants, paired_t
from bertune.types import Baseline, Entity, Prediction, Scores

FIGURES = (
    PublishedFigure("BERT-base", "mcc", 52.1, "dev", "Devlin 2019, table 1"),
    PublishedFigure("RoBERTa-large-with-a-long-name", "mcc", 68.0, "dev", "Liu 2019"),
    PublishedFigure("another", "mcc", 60.0, "dev", "somebody"),
)


def record(value, *, metric="mcc", test=None, higher=True, **changes):
    half = 0.03
    scores = {"dev": Scores(metric, higher, {metric: value}, {metric: (value - half, value + half)})}
    if test is not None:
        scores["test"] = Scores(metric, higher, {metric: test}, {metric: (test - half, test + half)})
    summary = {"train_seconds": 61.5, "rows_per_s": 812.4, "peak_memory_gb": 1.234, "steps": 100}
    machine = {"cores": 2, "device": "cpu", "precision": "bf16", "python": "3.11", "bertune": "0"}
    made = RunRecord("", scores, summary, {"dev": {"rows": 9}}, False, 70.0, machine)
    return replace(made, **changes)


def make(tmp_path, values, *, variants=("minilm",), seeds=(1, 2, 3), extra=(), size=None):
    """A result of sets {name: {variant: [record of each seed]}}."""
    sets = [BenchSet(name, published=FIGURES if name == "glue:cola" else ()) for name in values]
    plan = BenchPlan(
        "glue", tmp_path / "out", (*sets, *extra), tuple(Variant(v) for v in variants), tuple(seeds),
        size or len(sets) + len(extra),
    )  # fmt: skip
    records = {
        (name, variant, seed): each
        for name, by_variant in values.items()
        for variant, made in by_variant.items()
        for seed, each in zip(seeds, made, strict=False)
    }
    return collect(plan, records)


def many_sets(tmp_path, **more):
    rng = np.random.default_rng(0)
    values = {
        name: {"minilm": [record(0.5 + 0.01 * x, test=test) for x in rng.normal(size=3)]}
        for name, test in (
            ("glue:cola", None),
            ("ner:weibo", 0.4),
            ("a-very-long-name-of-a-set-of-mine", None),
        )
    }
    values["情感分析"] = {"minilm": [record(0.9), RunRecord("data.jsonl:3: <b>no</b> | JSON"), record(0.8)]}
    values["number"] = {"minilm": [record(12345.678, metric="mse", higher=False)] * 3}
    extra = (BenchSet("glue:qqp", why_not="QQP/train.tsv is not in DIR"),)
    return make(tmp_path, values, extra=extra, **more)


def test_interval_is_over_seeds_or_of_rows(tmp_path):
    result = make(tmp_path, {"glue:cola": {"minilm": [record(0.5), record(0.6), record(0.58)]}})
    score = result.results["glue:cola", "minilm"].score()
    expected = stats.t.interval(0.95, 2, np.mean([0.5, 0.6, 0.58]), stats.sem([0.5, 0.6, 0.58]))
    assert score.interval == pytest.approx(expected)
    assert score.interval_kind == "over seeds (Student's t)"
    one = make(tmp_path, {"glue:cola": {"minilm": [record(0.5)]}}, seeds=(1,))
    score = one.results["glue:cola", "minilm"].score()
    assert score.interval == pytest.approx((0.47, 0.53))
    assert score.interval_kind == "of rows (bootstrap, one seed)"


def test_mean_of_a_suite_is_over_sets_of_each_seed(tmp_path):
    result = many_sets(tmp_path)
    variant = result.plan.variants[0]
    score = result.suite_score(variant)
    assert "number" not in score.sets  # less is better there
    assert "情感分析" in score.sets
    done = [result.results[name, "minilm"].done for name in score.sets]
    means = [np.mean([each[s].scores["dev"].main_value for each in done]) for s in (1, 3)]
    assert score.spread.mean == pytest.approx(np.mean(means))
    assert result.suite_score(variant, "test") is None  # one set alone has test rows
    assert make(tmp_path, {"glue:cola": {"minilm": [record(0.5)]}}).suite_score(variant) is None


def test_tables_fit_in_80_columns_and_name_every_set(tmp_path):
    result = many_sets(tmp_path)
    text = list(result_lines(result))
    tables = [line for line in text if not line.startswith(("not run:", "failed:", "mean: of"))]
    assert max(map(display_width, tables)) <= 80
    shown = "\n".join(text)
    for part in ("glue:cola", "ner:weibo", "情感分析", "not run: glue:qqp: QQP/train.tsv is not in DIR"):
        assert part in shown
    assert "of 4 of the 6 sets of glue, so not its score" in shown
    assert "情感分析: without seed 2, which failed" in shown
    assert "0.521 BERT-base (mcc, dev); 2 more" in shown


def test_the_page_and_markdown_have_the_same_numbers(tmp_path):
    result = many_sets(tmp_path)
    page, lines = bench_page(result, "bertune bench glue"), list(markdown_lines(result, "bertune bench glue"))
    score = result.results["glue:cola", "minilm"].score()
    for text in (page, "\n".join(lines)):
        for part in (
            f"{score.spread.mean:.4f}",
            "0.521 BERT-base",
            "Devlin 2019",
            "QQP/train.tsv",
            "2 cores",
        ):
            assert part in text
    assert "<b>no</b>" not in page
    for first, second in pairwise(line for line in lines if line.startswith("|")):
        if "---" in second:  # a row has as many cells as its header
            assert first.count(" | ") == second.count(" | ")
    json.dumps(result.to_json(), allow_nan=False)


def versus_of(tmp_path, a, b, **more):
    result = make(tmp_path, {name: {"A": a[name], "B": b[name]} for name in a}, variants=("A", "B"), **more)

    def no_rows(each, seed):
        raise AssertionError("dev rows are not read where they differ")

    return compare_variants(result, no_rows, no_rows, lambda _: None), result


@given(
    st.lists(st.floats(0.1, 0.9), min_size=2, max_size=5),
    st.lists(st.floats(-0.05, 0.05), min_size=5, max_size=5),
)
def test_paired_t_is_that_of_scipy(first, changes):
    second = [x + y for x, y in zip(first, changes, strict=False)]
    differences = np.subtract(second, first)
    found = paired_t(differences.tolist())
    if np.ptp(differences) > 1e-6:
        assert found == pytest.approx(stats.ttest_rel(second, first).pvalue, abs=1e-9)
    elif np.allclose(differences, 0, atol=1e-13):
        assert found == 1.0


def test_differences_that_do_not_vary_have_no_test():
    assert paired_t([0.1, 0.1]) is None
    assert paired_t([0.0, 0.0]) == 1.0
    assert paired_t([math.nan, 0.1]) is None


def test_other_dev_rows_and_other_seeds_are_not_compared(tmp_path):
    a, b = [record(0.5)] * 3, [record(0.6, data={"dev": {"rows": 8}})] * 3
    (versus,), result = versus_of(tmp_path, {"x": a}, {"x": b})
    assert versus.sets[0].why_not == "the dev rows differ"
    assert versus.sets[0].better is None
    assert versus.counts() == (0, 1, 0)
    shown = "\n".join(result_lines(replace(result, versus=(versus,))))
    assert "x: no test: the dev rows differ" in shown
    (nothing,), _ = versus_of(tmp_path, {"x": [RunRecord("failed")] * 3}, {"x": b})
    assert nothing == Versus("A", "B", ())


def test_records_and_predictions_are_read_as_they_were_written(tmp_path):
    made = record(0.5, test=math.nan, notes=("a", "b"), resumed=True)
    write_record(tmp_path / "r.json", made)
    again = read_record(tmp_path / "r.json")
    assert again.to_json()["scores"]["dev"] == made.to_json()["scores"]["dev"]
    assert math.isnan(again.scores["test"].main_value)
    assert (again.notes, again.resumed, again.summary) == (made.notes, True, made.summary)
    (tmp_path / "r.json").write_text('{"format": 1')  # cut off
    assert read_record(tmp_path / "r.json") is None
    values = ["pos", 0.25, ("a", "b"), (), (Entity(0, 2, "X", "ab", 0.5),)]
    write_predictions(tmp_path / "p.gz", [Prediction(value, 0.5, {"pos": 0.5}) for value in values])
    assert [p.value for p in read_predictions(tmp_path / "p.gz")] == values


def test_what_has_learnt_nothing_is_said(tmp_path):
    scores = Scores(
        "accuracy", True, {"accuracy": 0.6}, baseline=Baseline("the largest class", {"accuracy": 0.6})
    )
    good = replace(scores, values={"accuracy": 0.9})
    made = [record(0, scores={"dev": each}) for each in (scores, good, scores)]
    result = make(tmp_path, {"glue:mrpc": {"minilm": made}})
    shown = "\n".join(result_lines(result))
    assert "glue:mrpc, seeds 1, 3: no better than the largest class (0.6000)" in shown
    write_record(tmp_path / "r.json", made[0])
    assert read_record(tmp_path / "r.json").unlearnt == made[0].unlearnt


def test_seconds_of_a_resumed_run_come_from_its_speed():
    made = record(0.5, resumed=True)
    assert math.isnan(made.train_seconds)
    made.summary["batch_size"] = 32
    assert made.train_seconds == pytest.approx(100 * 32 / 812.4)
    assert record(0.5).train_seconds == 61.5


def test_submissions_are_of_the_best_seed_and_the_same_bytes(tmp_path):
    values = {"glue:cola": {"minilm": [record(0.5), record(0.7), record(0.7)]}}
    result = make(tmp_path, values)
    named = BenchSet("glue:cola", boards=("glue:cola",))
    plan = replace(result.plan, sets=(named,))
    result = collect(
        plan, {(*key, seed): r for key, each in result.results.items() for seed, r in each.done.items()}
    )
    for seed in (1, 2, 3):
        folder = plan.run_of(named, plan.variants[0], seed).submission
        folder.mkdir(parents=True)
        (folder / "CoLA.tsv").write_text(f"index\tprediction\n0\t{seed}\n")
    notes = []
    (archive,) = write_submissions(result, notes.append)
    first = archive.read_bytes()
    assert (tmp_path / "out/submission/minilm/CoLA.tsv").read_text().endswith("0\t2\n")
    assert any("of seed 2, the best on the dev rows" in note for note in notes)
    assert any("missing: AX.tsv, MNLI-m.tsv" in note for note in notes)
    write_submissions(result, notes.append)
    assert archive.read_bytes() == first
    assert best_seed({1: record(3.0, higher=False), 2: record(2.0, higher=False)}) == 2
    assert best_seed({}) is None
