"""Metrics of spans equal those of seqeval where it has them, else their definitions."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import classification_report, f1_score, precision_score, recall_score

from bertune.commands.train import prepare
from bertune.data.tags import spans_to_tags
from bertune.metrics.classification import per_label_scores
from bertune.metrics.spans import count_spans, span_scores
from bertune.types import Entity, Example, Prediction, Span

LABELS = ("PER", "LOC", "a-b", "none")  # one that never occurs
quickly = settings(max_examples=80)


@st.composite
def one_side(draw, num_words: int):
    spans, place = [], draw(st.integers(0, 2))
    while place < num_words:
        end = min(num_words, place + draw(st.integers(1, 3)))
        spans.append((place, end, draw(st.sampled_from(LABELS[:3]))))
        place = end + draw(st.integers(0, 3))
    return draw(st.sampled_from([spans, spans, spans, []]))


@st.composite
def corpora(draw):
    """Gold and predicted spans of sentences, sometimes equal, and the number of words of each."""
    lengths = draw(st.lists(st.integers(0, 7), min_size=1, max_size=6))
    gold = [draw(one_side(n)) for n in lengths]
    predicted = [g if draw(st.booleans()) else draw(one_side(n)) for g, n in zip(gold, lengths, strict=True)]
    return gold, predicted, lengths


def all_scores(gold, predicted):
    return span_scores(count_spans(gold, predicted, LABELS))


@pytest.mark.parametrize("scheme", ["BIO", "BIOES", "IOB1"])
@quickly
@given(corpora())
def test_exact_figures_are_those_of_seqeval(scheme, corpus):
    gold, predicted, lengths = corpus
    counts = count_spans(gold, predicted, LABELS)
    actual = span_scores(counts)
    tags = [
        [spans_to_tags(spans, n, scheme) for spans, n in zip(side, lengths, strict=True)]
        for side in (gold, predicted)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = {
            f.__name__.split("_")[0]: f(*tags, zero_division=0)
            for f in (precision_score, recall_score, f1_score)
        }
        empty = not any(gold) and not any(predicted)  # seqeval has no report without spans
        report = {} if empty else classification_report(*tags, output_dict=True, zero_division=0)
    assert {name: actual[name] for name in reference} == pytest.approx(reference, abs=1e-12)
    assert actual["f1_macro"] == pytest.approx(report["macro avg"]["f1-score"] if report else 0.0, abs=1e-12)
    by_label = per_label_scores(LABELS, *(c.sum(0) for c in counts[:3]))
    for label in LABELS:
        label_report = report.get(label, {"precision": 0, "recall": 0, "f1-score": 0, "support": 0})
        assert by_label[label] == pytest.approx(
            {name.replace("-score", ""): value for name, value in label_report.items()}, abs=1e-12
        )


def naive_f1(precision_of, recall_of):
    """F1 from whether each predicted span and each gold span is right."""
    sides = [[right for sentence in side for right in sentence] for side in (precision_of, recall_of)]
    precision, recall = (sum(side) / len(side) if side else 0.0 for side in sides)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def by_word(spans):
    return [{(n, label) for n in range(start, end)} for start, end, label in spans]


@settings(max_examples=200)
@given(corpora())
def test_loose_figures_are_those_of_the_definition(corpus):
    gold, predicted, _ = corpus
    actual = all_scores(gold, predicted)
    pairs = list(zip(gold, predicted, strict=True))
    same = (
        [[any(s[:2] == o[:2] for o in g) for s in p] for g, p in pairs],
        [[any(s[:2] == o[:2] for o in p) for s in g] for g, p in pairs],
    )
    met = (
        [[any(s & o for o in by_word(g)) for s in by_word(p)] for g, p in pairs],
        [[any(s & o for o in by_word(p)) for s in by_word(g)] for g, p in pairs],
    )
    assert actual["boundary_f1"] == pytest.approx(naive_f1(*same), abs=1e-12)
    assert actual["type_f1"] == pytest.approx(naive_f1(*met), abs=1e-12)
    right = [s[2] == o[2] for g, p in pairs for s in p for o in g if s[:2] == o[:2]]
    assert actual["type_accuracy"] == pytest.approx(sum(right) / len(right) if right else 0.0, abs=1e-12)
    assert actual["f1"] <= min(actual["boundary_f1"], actual["type_f1"]) + 1e-12
    assert all(0 <= value <= 1 for value in actual.values())
    assert all(type(value) is float for value in actual.values())


@quickly
@given(corpora(), st.randoms(use_true_random=False))
def test_order_does_not_matter_and_sides_change_places(corpus, random):
    gold, predicted, _ = corpus
    actual = all_scores(gold, predicted)
    pairs = [
        (random.sample(g, len(g)), random.sample(p, len(p))) for g, p in zip(gold, predicted, strict=True)
    ]
    random.shuffle(pairs)
    assert all_scores(*zip(*pairs, strict=True)) == pytest.approx(actual, abs=1e-12)
    swapped = all_scores(predicted, gold)
    assert (swapped.pop("precision"), swapped.pop("recall")) == (
        actual.pop("recall"),
        actual.pop("precision"),
    )
    assert swapped == pytest.approx(actual, abs=1e-12)


@quickly
@given(corpora())
def test_counts_of_sentences_add_up(corpus):
    gold, predicted, _ = corpus
    together = count_spans(gold, predicted, LABELS)
    for n, (g, p) in enumerate(zip(gold, predicted, strict=True)):
        alone = count_spans([g], [p], LABELS)
        assert all((joint[n] == single[0]).all() for joint, single in zip(together, alone, strict=True))
    assert together.gold.sum() == sum(map(len, gold))
    assert together.predicted.sum() == sum(map(len, predicted))
    assert (together.relaxed[:, 3] == together.hits.sum(1)).all()


def test_gold_is_right_and_nothing_is_wrong():
    spans = [[(0, 2, "PER"), (3, 4, "LOC")], []]
    assert set(all_scores(spans, spans).values()) == {1.0}
    assert set(all_scores(spans, [[], []]).values()) == {0.0}
    assert set(all_scores([[], []], spans).values()) == {0.0}
    assert set(all_scores([[]], [[]]).values()) == {0.0}
    assert set(all_scores([], []).values()) == {0.0}


def test_a_span_said_twice_is_right_once_and_predicted_twice():
    counts = count_spans([[(0, 2, "PER")]], [[(0, 2, "PER"), (0, 2, "PER")]], LABELS)
    assert (counts.hits.sum(), counts.predicted.sum(), counts.gold.sum()) == (1, 2, 1)
    actual = span_scores(counts)
    assert (actual["precision"], actual["recall"], actual["f1"]) == pytest.approx((1 / 2, 1, 2 / 3))
    assert actual["boundary_f1"] == pytest.approx(2 / 3)
    assert actual["type_accuracy"] == 1.0


def test_by_hand():
    """One right, one of the wrong label, one too long, one missed, one invented."""
    gold = [[(0, 2, "PER"), (3, 4, "LOC"), (5, 6, "PER")], [(0, 1, "LOC")]]
    predicted = [[(0, 2, "PER"), (3, 4, "PER"), (5, 7, "PER")], [(2, 3, "a-b")]]
    assert all_scores(gold, predicted) == pytest.approx(
        {"precision": 1 / 4, "recall": 1 / 4, "f1": 1 / 4, "f1_macro": (2 / 5 + 0 + 0) / 3,
         "boundary_f1": 1 / 2, "type_f1": 1 / 2, "type_accuracy": 1 / 2}
    )  # fmt: skip


# ---------------------------------------------------------------- in the task


def scored(gold, predicted, metric="f1", intervals=True):
    task = prepare("tag", ["data.train=rows.jsonl", f"options.metric={metric}"])[1]
    task.load_state({"types": list(LABELS), "scheme": "BIO", "unit": "words"})
    examples = [Example(("x" * 20,), tuple(Span(*s) for s in spans)) for spans in gold]
    predictions = [Prediction(tuple(Entity(*s, "x", 0.5) for s in spans)) for spans in predicted]
    return task.score(predictions, examples, intervals=intervals)


@pytest.mark.parametrize("metric", ["f1", "f1_macro", "boundary_f1", "type_f1"])
def test_the_interval_holds_the_value_of_the_main_figure(metric):
    random = np.random.default_rng(0)
    gold = [[(0, 2, LABELS[n % 3]), (3, 5, "PER")] for n in range(40)]
    predicted = [
        [(0, 2, LABELS[n % 3]), *([(3, 5, "PER")] if random.random() < 0.6 else [(6, 7, "LOC")])]
        for n in range(40)
    ]
    scores = scored(gold, predicted, metric)
    assert (scores.main_metric, scores.higher_is_better) == (metric, True)
    assert scores.main_value == all_scores(gold, predicted)[metric]
    low, high = scores.intervals[metric]
    assert low < scores.main_value < high
    assert set(scores.intervals) == {metric}
    assert scored(gold, predicted, metric).intervals == scores.intervals
    assert scored(gold, predicted, metric, intervals=False).intervals == {}
    assert scored(gold, gold, metric).intervals == {metric: (1.0, 1.0)}


def test_the_interval_draws_whole_sentences():
    """With 20 spans a sentence, all right or all wrong, the interval is that of 30 draws, not of 600."""
    gold = [[(n, n + 1, "PER") for n in range(20)] for _ in range(30)]
    predicted = [spans if n % 2 else [(s, e, "LOC") for s, e, _ in spans] for n, spans in enumerate(gold)]
    low, high = scored(gold, predicted).intervals["f1"]
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 30), rel=0.15)


def test_of_one_text_no_interval_is_known():
    assert scored([[(0, 1, "PER")]], [[(0, 1, "PER")]]).intervals == {}
