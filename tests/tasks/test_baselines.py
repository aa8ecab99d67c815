"""What a model that has learnt nothing scores: as scikit-learn's dummies, and no constant scores more."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error, mean_squared_error

from bertune.config.schema import DataConfig
from bertune.tasks.base.baselines import (
    baseline_of,
    compare_with_baseline,
    entity_signs,
    label_signs,
    number_signs,
    similarity_signs,
    with_baseline,
)
from bertune.tasks.classify import Classify
from bertune.tasks.embed import Embed
from bertune.tasks.match import Match
from bertune.tasks.regress import Regress
from bertune.tasks.tag import Tag
from bertune.types import Baseline, Entity, Example, Location, Prediction, Scores, Span

LABELS = ["ham", "maybe", "spam"]


def examples_of(targets, texts=("a text",)):
    return [Example(texts, target, Location("rows", n)) for n, target in enumerate(targets, 1)]


def fitted(task_class, targets, texts=("a text",), **options):
    """A task that has learnt from rows with these targets, and the rows."""
    task, examples = task_class(task_class.Options(**options), DataConfig()), examples_of(targets, texts)
    task.fit(examples, lambda _: None)
    return task, examples


def baseline(task_class, targets, texts=("a text",), **options):
    task, examples = fitted(task_class, targets, texts, **options)
    return baseline_of(task, examples)


def dummy(targets, strategy="most_frequent", **given_constant):
    rows = np.zeros((len(targets), 1))
    model = DummyClassifier(strategy=strategy, **given_constant).fit(rows, targets)
    return model.predict(rows)


@pytest.mark.parametrize("targets", [["ham"] * 7 + ["spam"] * 3, ["b", "a", "c", "c", "a", "c"]])
def test_the_largest_class_scores_as_the_dummy_of_scikit_learn(targets):
    found = baseline(Classify, targets, metric="accuracy").values
    predicted = dummy(targets)
    assert found["accuracy"] == pytest.approx(accuracy_score(targets, predicted))
    for average in ("macro", "weighted", "micro"):
        assert found[f"f1_{average}"] == pytest.approx(f1_score(targets, predicted, average=average))
    assert found["mcc"] == 0


def test_f1_of_a_rare_label_is_that_of_predicting_it_always():
    targets = ["ham"] * 7 + ["spam"] * 3
    found = baseline(Classify, targets, metric="f1")
    predicted = dummy(targets, "constant", constant="spam")
    assert found.values["f1"] == pytest.approx(f1_score(targets, predicted, pos_label="spam"))
    assert found.name == "'spam' for every row"
    assert baseline(Classify, targets).name == "the largest class, 'ham', alone"


@settings(max_examples=30)
@given(st.lists(st.sampled_from(LABELS), min_size=2, max_size=12), st.data())
def test_no_constant_label_is_better(targets, data):
    names = ["accuracy", "f1_macro", "f1_micro", "f1_weighted", "mcc"]
    names += ["f1"] if len(set(targets)) == 2 else []
    metric = data.draw(st.sampled_from(names))
    if len(set(targets)) < 2:
        return
    task, examples = fitted(Classify, targets, metric=metric)
    scores = [
        task.score([Prediction(label)] * len(targets), examples, intervals=False).main_value
        for label in task.labels
    ]
    assert baseline_of(task, examples).values[metric] == pytest.approx(max(scores))


@settings(max_examples=30)
@given(
    st.lists(st.lists(st.sampled_from(LABELS), max_size=3, unique=True), min_size=2, max_size=8),
    st.sampled_from(["f1_micro", "f1_macro", "f1_weighted"]),
)
def test_no_constant_set_of_labels_is_better(sets, metric):
    targets = [tuple(sorted(labels)) for labels in sets]
    if len(set(targets)) < 2:
        return
    task, examples = fitted(Classify, targets, problem_type="multi_label", metric=metric)
    choices = [c for n in range(4) for c in itertools.combinations(task.labels, n)]
    scores = [
        task.score([Prediction(c)] * len(targets), examples, intervals=False).main_value for c in choices
    ]
    assert baseline_of(task, examples).values[metric] == pytest.approx(max(scores))


@settings(max_examples=30)
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=20).filter(lambda x: np.std(x) > 1e-3))
def test_numbers_score_as_the_dummies_of_scikit_learn(targets):
    rows = np.zeros((len(targets), 1))
    for metric, strategy, measure in (
        ("mse", "mean", mean_squared_error),
        ("mae", "median", mean_absolute_error),
    ):
        found = baseline(Regress, targets, metric=metric)
        predicted = DummyRegressor(strategy=strategy).fit(rows, targets).predict(rows)
        assert found.values[metric] == pytest.approx(measure(targets, predicted), abs=1e-9)
    assert baseline(Regress, targets).values["pearson"] == 0
    assert baseline(Regress, targets).name.startswith("the mean, ")


def test_no_entity_at_all_scores_nothing():
    found = baseline(Tag, [(Span(0, 1, "PER"),), ()])
    assert found.name == "no entity at all"
    assert set(found.values.values()) == {0.0}


def test_one_tag_a_word_has_the_most_frequent_tag():
    tags = ["NN", "NN", "VB", "NN", "DT"]
    task = Tag(Tag.Options(scheme="none"), DataConfig())
    examples = examples_of([tuple(Span(n, n + 1, tag) for n, tag in enumerate(tags))])
    task.fit(examples, lambda _: None)
    found = baseline_of(task, examples)
    assert found.values["accuracy"] == pytest.approx(accuracy_score(tags, dummy(tags)))
    assert found.name == "the most frequent tag, 'NN', for every word"


def test_pairs_have_the_largest_class_or_one_similarity():
    pair = ("a", "b")
    labels = ["yes", "no", "yes"]
    assert baseline(Match, labels, pair, loss="softmax").values["accuracy"] == pytest.approx(2 / 3)
    assert baseline(Match, [0, 2.5, 5], pair, loss="cosent").values["spearman"] == 0
    # scikit-learn: average_precision_score([1, 0, 0, 1], [0, 0, 0, 0]) is the share of ones
    assert baseline(Match, [1, 0, 0, 0], pair, loss="cosent").values["average_precision"] == 0.25


@pytest.mark.parametrize(
    ("task_class", "targets", "texts"),
    [
        (Classify, ["a", "a"], ("x",)),
        (Classify, [("a", "b"), ("b", "a")], ("x",)),
        (Regress, [1.0, 1.0], ("x",)),
        (Tag, [(), ()], ("x",)),
        (Match, [2.0, 2.0], ("x", "y")),
        (Embed, [None, None], ("x",)),
    ],
)
def test_rows_without_a_difference_have_no_baseline(task_class, targets, texts):
    task = task_class(task_class.Options(), DataConfig())
    learnt_from = {Classify: ["a", "b"], Regress: [1.0, 2.0], Match: [1.0, 2.0]}
    rows = learnt_from.get(task_class, [(Span(0, 1, "PER"),)])
    rows = [("a",), ("b",)] if isinstance(targets[0], tuple) and task_class is Classify else rows
    if task_class is not Embed:  # which refuses rows that are all the same
        task.fit(examples_of(rows, texts), lambda _: None)
    assert baseline_of(task, examples_of(targets, texts)) is None
    assert baseline_of(task, []) is None


def test_a_task_with_a_score_of_its_own_has_none_unless_it_says_so():
    class Own(Classify):
        def score(self, predictions, examples, *, intervals=True):
            assert all(p.probabilities for p in predictions)  # which no constant has
            return super().score(predictions, examples, intervals=intervals)

    class Both(Own):
        def baseline(self, examples):
            return Baseline("a coin", {"accuracy": 0.5})

    assert baseline(Own, ["a", "b"]) is None
    assert baseline(Both, ["a", "b"]) == Baseline("a coin", {"accuracy": 0.5})


def scores(value, metric="accuracy", interval=None, base=0.5, *, higher=True, untrained=False):
    return Scores(
        metric, higher, {metric: value}, {metric: interval} if interval else {},
        baseline=Baseline("a coin", {metric: base}, untrained),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        (scores(0.6), ""),
        (scores(0.5), "no better than a coin (0.5000)"),
        (scores(0.4, interval=(0.3, 0.9)), "no better than a coin (0.5000)"),
        (scores(0.6, interval=(0.55, 0.7)), ""),
        (scores(0.6, interval=(0.49, 0.7)),
         "hardly better than a coin (0.5000), which its 95 % interval reaches"),
        (scores(0.6, interval=(0.49, 0.7), untrained=True), ""),
        (scores(0.5, untrained=True), "no better than a coin (0.5000)"),
        (scores(0.05, "mcc", (0.01, 0.09), 0.0), "hardly better than a coin (0.0000)"),
        (scores(0.2, "mcc", (0.1, 0.3), 0.0), ""),
        (scores(0.55, "pearson", base=0.5, untrained=True), ""),
        (scores(0.6, "mse", higher=False), "no better than a coin (0.5000)"),
        (scores(0.4, "mse", (0.3, 0.45), higher=False), ""),
        (scores(0.4, "mse", (0.3, 0.55), higher=False),
         "hardly better than a coin (0.5000), which its 95 % interval reaches"),
        (Scores("accuracy", True, {"accuracy": 0.1}), ""),
    ],
)  # fmt: skip
def test_how_scores_compare(figures, said):
    assert compare_with_baseline(figures) == said


def test_scores_keep_their_baseline_as_json():
    for untrained in (False, True):
        figures = scores(0.6, untrained=untrained)
        assert Scores.from_json(figures.to_json()) == figures
    assert "baseline" not in Scores("f1", True, {"f1": 0.0}).to_json()


def test_signs_of_labels():
    task, examples = fitted(Classify, ["a"] * 8 + ["b"] * 2)

    def signs(predictions, *, is_weighted=False):
        predictions = [Prediction(label) for label in predictions]
        return label_signs(predictions, task.score(predictions, examples), is_weighted=is_weighted)

    (sign,) = signs("a" * 10)
    assert (sign.fact, sign.remedy) == ("all 10 rows get 'a'", "options.class_weights=balanced")
    assert signs("a" * 10, is_weighted=True)[0].remedy == ""
    assert signs("b" * 10)[0].remedy == ""
    (sign,) = signs("a" * 5 + "b" * 5)  # accuracy 0.7, below the largest class, and yet MCC 0.5
    assert sign.fact == "labels are told apart all the same, MCC 0.5000"
    assert signs("ab" * 5) == []
    sets = [Prediction(()) for _ in range(3)]
    assert label_signs(sets, scores(0.0), is_weighted=True)[0].fact == "all 3 rows get no label"


def test_signs_of_numbers_entities_and_similarities():
    assert number_signs([2.50, 2.51], [0.0, 5.0])[0].fact == (
        "predictions lie between 2.5 and 2.51, targets between 0 and 5"
    )
    assert number_signs([1.0, 4.0], [0.0, 5.0]) == []
    rows = examples_of([(Span(0, 1, "PER"),)])
    entity = Entity(0, 1, "PER", "a", 1.0)
    assert entity_signs([Prediction(())], rows)[0].fact == "no entity is predicted, the rows have 1"
    assert entity_signs([Prediction((entity,))], rows)[0].fact == "entities predicted: 1, in the rows: 1"
    backwards = Scores("spearman", True, {"spearman": -0.5})
    assert "higher number means more alike" in similarity_signs([Prediction(0.5)], backwards)[0].remedy
    assert similarity_signs([Prediction(0.5)], scores(0.5, "spearman")) == []


def test_with_baseline_changes_nothing_else():
    task, examples = fitted(Classify, ["a", "b", "b"])
    before = task.score([Prediction("a")] * 3, examples)
    after = with_baseline(before, task, examples)
    assert after.baseline is not None
    assert after.values == before.values
    assert after.intervals == before.intervals
