"""Tasks that have learnt a calibration apply it in every prediction, keep it in their state, and forget it."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from bertune.config.schema import DataConfig
from bertune.errors import ConfigError, DataError
from bertune.metrics.calibration import calibration_figures
from bertune.tasks import load_task
from bertune.tasks.base.calibration import CalibrationRequest, LabelCalibration, two_halves
from bertune.types import Example, Location, Prediction

LABELS = ("blue", "green", "红")


def quiet(_):
    pass


def fitted(name="classify", targets=LABELS * 2, **options):
    """A task that has learnt from one row a target."""
    task_class = load_task(name)
    task = task_class(task_class.Options(**options), DataConfig())
    texts = (("a", "b") if name == "match" else ("a",) for _ in targets)
    rows = zip(texts, targets, strict=True)
    task.fit([Example(t, y, Location("train.csv", n)) for n, (t, y) in enumerate(rows, 1)], quiet)
    return task


def drawn(n=600, num_labels=3, factor=3.0, seed=0):
    """Logits (n, N) that are too sure by `factor`, and label ids drawn from the true probabilities."""
    rng = np.random.default_rng(seed)
    logits = torch.tensor(rng.normal(size=(n, num_labels)) * 1.5, dtype=torch.float32)
    gold = [int(rng.choice(num_labels, p=p)) for p in logits.double().softmax(-1).numpy()]
    return logits * factor, gold


def examples_of(targets):
    return [Example((f"text {n}",), y, Location("dev.csv", n)) for n, y in enumerate(targets, 1)]


def several(n=500, seed=0):
    """Logits of three labels that are too sure, and rows with the labels drawn from the true ones."""
    rng = np.random.default_rng(seed)
    logits = torch.tensor(rng.normal(size=(n, 3)) * 1.5, dtype=torch.float32)
    applies = rng.random((n, 3)) < logits.sigmoid().numpy()
    return logits * 3, examples_of([tuple(np.array(LABELS)[flags].tolist()) for flags in applies])


def test_a_temperature_makes_probabilities_true_and_keeps_labels():
    task = fitted(calibration="auto")
    (logits, gold), notes = drawn(), []
    examples = examples_of([LABELS[i] for i in gold])
    own = task.decode(logits, None)
    scored = task.calibrate(task.decode_to_score(logits, None), examples, notes.append)
    assert task.calibration.temperature == pytest.approx(3, rel=0.15)
    new = task.decode(logits, None)
    assert [p.value for p in new] == [p.value for p in own] == [p.value for p in scored]
    expected = (logits.double() / task.calibration.temperature).softmax(-1).numpy()
    got = np.array([[p.probabilities[label] for label in LABELS] for p in new])
    assert got == pytest.approx(expected, abs=1e-6)
    before, after = (
        calibration_figures(np.array([list(p.probabilities.values()) for p in ps]), np.array(gold))
        for ps in (own, new)
    )
    assert after.ece < before.ece / 3
    assert task.calibration.before == pytest.approx(before.to_json())
    assert task.calibration.after["nll"] == pytest.approx(after.nll, rel=0.02)
    assert len(notes) == 1
    assert notes[0].startswith("calibration: temperature ")
    assert "600 dev rows" in notes[0]


def test_without_the_setting_nothing_changes():
    """Bit for bit what torch computes, in predictions, in what is kept to score them, and in the state."""
    logits, gold = drawn()
    for task in (fitted(), fitted(targets=[("blue",), ("green", "红")])):
        functions = {True: lambda x: x.sigmoid(), False: lambda x: x.softmax(-1)}
        expected = functions[task.is_multi_label](logits).tolist()
        state = json.dumps(task.state())
        predictions = task.decode(logits, None)
        assert [list(p.probabilities.values()) for p in predictions] == expected
        assert "calibration" not in task.state()
        if not task.is_multi_label:
            scored = task.decode_to_score(logits, None)
            assert all(p.vectors is None for p in scored)
            assert task.calibrate(scored, examples_of([LABELS[i] for i in gold]), pytest.fail) is scored
            assert json.dumps(task.state()) == state


@pytest.mark.parametrize(
    ("options", "targets"),
    [
        ({"calibration": "auto"}, LABELS),
        ({"calibration": "auto", "threshold": 0.4}, [("blue",), ("green", "红")]),
        ({"costs": {"false_positive": 2}}, [("blue",), ("green", "红")]),
    ],
)
def test_the_state_brings_it_back(options, targets):
    task = fitted(targets=targets, **options)
    logits, examples = several()
    if not task.is_multi_label:
        logits, gold = drawn(n=1500)
        examples = examples_of([LABELS[i] for i in gold])
    task.calibrate(task.decode_to_score(logits, None), examples, quiet)
    again = load_task("classify")(task.options, DataConfig())
    again.load_state(json.loads(json.dumps(task.state())))
    assert again.decode(logits, None) == task.decode(logits, None)
    assert again.state() == task.state()
    to_set, to_same = (t.prediction_sets(0.9, quiet) for t in (task, again))
    assert [to_set(p) for p in task.decode(logits, None)] == [to_same(p) for p in again.decode(logits, None)]
    numbers = sum(len(s["scores"]) for s in task.state()["calibration"]["conformal"])
    assert numbers <= 1000
    again.reset_calibration()
    assert "calibration" not in again.state()


def test_a_state_of_an_earlier_version_has_none():
    task = fitted(calibration="auto")
    task.calibration = LabelCalibration("temperature", "dev rows", 9, temperature=2.0)
    task.load_state({k: v for k, v in fitted().state().items() if k != "calibration"})
    assert task.calibration is None


def test_platt_scales_each_label_and_thresholds_go_with_it():
    task, (logits, examples) = fitted(targets=[("blue",), ("green", "红")], calibration="auto"), several()
    own = fitted(targets=[("blue",), ("green", "红")])
    own_scored = own.calibrate(own.decode_to_score(logits, None), examples, quiet)
    scored = task.calibrate(task.decode_to_score(logits, None), examples, quiet)
    assert [p.value for p in scored] == [p.value for p in own_scored]  # the best F1 is that of the same rows
    assert task.thresholds == own.thresholds != list(task.calibration.thresholds)
    assert [p.value for p in task.decode(logits, None)] == [p.value for p in own.decode(logits, None)]
    slopes = [slope for slope, _ in task.calibration.platt]
    assert slopes == pytest.approx([1 / 3] * 3, rel=0.25)
    assert task.calibration.after["ece"] < task.calibration.before["ece"] / 2


def test_a_label_without_rows_keeps_its_probability():
    task, (logits, examples) = fitted(targets=[("blue",), ("green", "红")], calibration="auto"), several()
    notes = []
    without = [replace(e, target=tuple(y for y in e.target if y != "红")) for e in examples]
    task.calibrate(task.decode_to_score(logits, None), without, notes.append)
    assert task.calibration.platt[2] == (1.0, 0.0)
    assert any("none has" in note and "'红'" in note for note in notes)
    said = []
    to_set = task.prediction_sets(0.9, said.append)
    assert all("红" in to_set(p) for p in task.decode(logits, None))
    assert "fewer than 9 rows" in said[0] and "'红'" in said[0]


def binary(**options):
    return fitted(targets=("no", "yes"), **options)


def test_two_labels_have_a_threshold_of_the_positive_one():
    logits, gold = drawn(num_labels=2)
    examples = examples_of([("no", "yes")[i] for i in gold])
    fixed = binary(threshold=0.2, positive_label="no")
    for p in fixed.decode(logits, None):
        assert p.value == ("no" if p.probabilities["no"] >= 0.2 else "yes")
        assert p.confidence == p.probabilities[p.value]
    assert fixed.ignored_by_hf(None) == "the threshold of the positive label"
    costly, notes = binary(costs={"false_positive": 1, "false_negative": 5}), []
    scored = costly.calibrate(costly.decode_to_score(logits, None), examples, notes.append)
    plain = [p.value for p in binary().decode(logits, None)]
    assert [p.value for p in scored].count("yes") > plain.count("yes")
    assert [p.value for p in scored] == [p.value for p in costly.decode(logits, None)]
    mistakes = [(p.value, e.target) for p, e in zip(scored, examples, strict=True)]
    old = list(zip(plain, (e.target for e in examples), strict=True))
    cost = [ms.count(("yes", "no")) + 5 * ms.count(("no", "yes")) for ms in (mistakes, old)]
    assert cost[0] < cost[1]
    assert "false_positive 1, false_negative 5 on the dev rows: yes 0." in notes[0]
    precise = binary(target_precision=0.8, calibration="auto")
    scored = precise.calibrate(precise.decode_to_score(logits, None), examples, quiet)
    right = [e.target == "yes" for p, e in zip(scored, examples, strict=True) if p.value == "yes"]
    assert sum(right) / len(right) >= 0.8
    assert precise.calibration.method == "temperature" and costly.calibration.method == "none"


def test_a_precision_that_is_not_reached_is_said():
    logits, gold = drawn(n=40, num_labels=2)
    wrong = examples_of([("yes", "no")[i] for i in gold])
    task, notes = binary(target_precision=0.999), []
    task.calibrate(task.decode_to_score(-logits[:, [1, 0]], None), wrong, notes.append)
    task = binary(target_precision=0.999)
    even = torch.zeros(40, 2)
    notes.clear()
    task.calibrate(task.decode_to_score(even, None), wrong, notes.append)
    share = sum(e.target == "yes" for e in wrong) / 40
    assert any(f"0.999 is not reached on the dev rows; the highest precision there is: yes {share:.3f}" in n
               for n in notes)  # fmt: skip
    assert all(p.value == "yes" for p in task.decode(even, None))


@pytest.mark.parametrize("coverage", [0.7, 0.9])
@pytest.mark.parametrize("kind", ["one label", "several labels", "number"])
def test_sets_hold_the_truth_as_often_as_asked(kind, coverage):
    """Over many calibration sets the mean coverage of new rows is that of the order statistic."""
    covered = total = 0
    for seed in range(60):
        if kind == "number":
            task, rng = fitted("regress", targets=[1.0, 2.0], calibration="auto"), np.random.default_rng(seed)
            out = torch.tensor(rng.normal(size=(60, 1)), dtype=torch.float32)
            examples = examples_of((out[:, 0].numpy() + rng.normal(size=60)).tolist())
        elif kind == "one label":
            task = fitted(calibration="auto")
            out, gold = drawn(n=60, seed=seed)
            examples = examples_of([LABELS[i] for i in gold])
        else:
            task = fitted(targets=[("blue",), ("green", "红")], calibration="auto")
            out, examples = several(n=120, seed=seed)
        half = len(examples) // 2
        task.calibrate(task.decode_to_score(out[:half], None), examples[:half], quiet)
        to_set = task.prediction_sets(coverage, quiet)
        for prediction, example in zip(task.decode(out[half:], None), examples[half:], strict=True):
            found = to_set(prediction)
            if kind == "number":
                covered += found[0] <= example.target <= found[1]
                total += 1
            elif kind == "one label":
                covered += example.target in found
                total += 1
            else:
                covered += "green" in found and "green" in example.target
                total += "green" in example.target
    n = 30
    expected = math.ceil((n + 1) * coverage) / (n + 1)
    # Of n calibration rows, coverage varies by 1 / (n + 2); 60 draws of them, and `total` new rows.
    spread = math.sqrt(expected * (1 - expected) * (1 / total + 1 / (60 * (n + 2))))
    assert abs(covered / total - expected) < 4 * spread


def test_match_with_labels_is_calibrated_and_with_scores_refused():
    from bertune.heads.sentence import SentenceOutput

    task = fitted("match", targets=LABELS * 2, loss="softmax", calibration="auto")
    logits, gold = drawn()
    out = SentenceOutput(None, None, logits)
    examples = [replace(e, texts=(*e.texts, "b")) for e in examples_of([LABELS[i] for i in gold])]
    own = task.decode(out, None)
    task.calibrate(own, examples, quiet)
    assert task.calibration.temperature == pytest.approx(3, rel=0.15)
    assert [p.value for p in task.decode(out, None)] == [p.value for p in own]
    assert task.prediction_sets(0.9, quiet)(task.decode(out, None)[0])
    scores = fitted("match", targets=[0.1, 0.7, 0.3], loss="cosent")
    with pytest.raises(ConfigError, match="predicts similarities, which are no probabilities"):
        scores.check_calibration(CalibrationRequest())
    with pytest.raises(ConfigError, match="predicts similarities, which have no sets"):
        scores.prediction_sets(0.9, quiet)
    with pytest.raises(ConfigError, match="calibration has no effect"):
        fitted("match", targets=[0.1, 0.7, 0.3], loss="cosent", calibration="auto")


@pytest.mark.parametrize("name", ["tag", "embed"])
def test_other_tasks_are_refused_by_name(name):
    task_class = load_task(name)
    task = task_class(task_class.Options(), DataConfig())
    with pytest.raises(ConfigError, match=f"calibrate: task {name} has neither"):
        task.check_calibration(CalibrationRequest())
    with pytest.raises(ConfigError, match=f"calibrate: task {name} has neither"):
        task.learn_calibration([], [], CalibrationRequest(), quiet, "rows")
    with pytest.raises(ConfigError, match=f"coverage: task {name} has no sets"):
        task.prediction_sets(0.9, quiet)


REQUESTS = {
    "unknown method": ("classify", LABELS, {"method": "isotonic"}, "method: 'isotonic' is none of auto, temperature"),
    "platt for one label": ("classify", LABELS, {"method": "platt"}, "use temperature"),
    "temperature for several": ("classify", [("a",), ("b",)], {"method": "temperature"}, "use platt"),
    "temperature of a number": ("regress", [1.0, 2.0], {"method": "temperature"}, "predicts a number; use auto"),
    "threshold of a number": ("regress", [1.0, 2.0], {"target_precision": 0.5}, "are for labels"),
    "threshold of three labels": ("classify", LABELS, {"costs": {"false_positive": 1}}, "the most probable of 3 labels"),
    "precision of 1": ("classify", ("a", "b"), {"target_precision": 1.0}, "1.0 is not a number between 0 and 1"),
    "precision as text": ("classify", ("a", "b"), {"target_precision": "0.9"}, "'0.9' is not a number between 0 and 1"),
    "precision nan": ("classify", ("a", "b"), {"target_precision": math.nan}, "nan is not a number between 0 and 1"),
    "no cost": ("classify", ("a", "b"), {"costs": {}}, "is not a mapping such as"),
    "unknown cost": ("classify", ("a", "b"), {"costs": {"false_positiv": 1}}, "did you mean 'false_positive'"),
    "cost of 0": ("classify", ("a", "b"), {"costs": {"false_positive": 0}}, "false_positive is 0; it must be a number above 0"),
    "both rules": ("classify", ("a", "b"), {"costs": {"false_positive": 1}, "target_precision": 0.9}, "use one of them"),
}  # fmt: skip


@pytest.mark.parametrize("name", REQUESTS)
def test_impossible_requests_are_refused(name):
    task_name, targets, request, message = REQUESTS[name]
    with pytest.raises(ConfigError, match="calibrate: ") as caught:
        fitted(task_name, targets=targets).check_calibration(CalibrationRequest(**request))
    assert message in str(caught.value)


OPTIONS = {
    "threshold of three": (LABELS, {"threshold": 0.5}, "options.threshold is for several labels a row, or for two"),
    "all of three": (LABELS, {"threshold": 0.5, "target_precision": 0.9, "costs": {"false_positive": 1}}, "options.threshold, options.target_precision, options.costs are for several labels"),
    "two rules": (("a", "b"), {"target_precision": 0.9, "costs": {"false_negative": 1}}, "options.target_precision, options.costs contradict"),
    "rule and number": ([("a",), ("b",)], {"threshold": 0.3, "target_precision": 0.9}, "options.threshold, options.target_precision contradict"),
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
def test_settings_that_contradict_are_refused(name):
    targets, options, message = OPTIONS[name]
    with pytest.raises(ConfigError) as caught:
        fitted(targets=targets, **options)
    assert message in str(caught.value)


@pytest.mark.parametrize("coverage", [0, 1, -0.5, 1.5, math.nan, True, "0.9", None])
def test_impossible_coverages_are_refused(coverage):
    task = fitted()
    with pytest.raises(ConfigError, match="is not a number between 0 and 1"):
        task.prediction_sets(coverage, quiet)


def test_too_few_rows_are_refused_with_how_many_are_needed():
    task, (logits, gold) = fitted(calibration="auto"), drawn(n=18)
    notes = []
    task.calibrate(task.decode_to_score(logits, None), examples_of([LABELS[i] for i in gold]), notes.append)
    assert any("18 rows are few" in note for note in notes)
    task.prediction_sets(0.9, quiet)
    with pytest.raises(ConfigError, match="needs scores of at least 19 rows, and calibration saw 18"):
        task.prediction_sets(0.95, quiet)
    with pytest.raises(ConfigError, match="bertune calibrate MODEL FILE"):
        fitted().prediction_sets(0.9, quiet)


def test_predictions_without_probabilities_are_refused():
    task, (logits, gold) = fitted(), drawn(n=5)
    examples = examples_of([LABELS[i] for i in gold])
    with pytest.raises(ConfigError, match="hold no probabilities"):
        task.learn_calibration(task.decode_to_score(logits, None), examples, CalibrationRequest(), quiet, "r")
    with pytest.raises(DataError, match="no out-of-fold rows to learn from"):
        task.learn_calibration([], [], CalibrationRequest(), quiet, "out-of-fold rows")


def test_other_rows_are_named():
    task, (logits, gold), notes = fitted(calibration="auto"), drawn(n=90), []
    examples = examples_of([LABELS[i] for i in gold])
    task.calibrate_on(task.decode(logits, None), examples, notes.append, "out-of-fold rows")
    assert "learnt on 90 out-of-fold rows" in notes[0]
    several_task = fitted(targets=[("blue",), ("green", "红")])
    logits, examples = several(n=60)
    several_task.calibrate_on(several_task.decode(logits, None), examples, notes.append, "out-of-fold rows")
    assert "thresholds with the best F1 on the out-of-fold rows" in notes[-1]


def test_a_task_of_ones_own_is_calibrated_as_before():
    """Its `calibrate` takes predictions, examples and note, and gets rows of any kind."""
    from bertune.tasks.classify import Classify

    class Own(Classify):
        def calibrate(self, predictions, examples, note):
            note("own")
            return [Prediction("own")]

    from bertune.tasks.base.task import Task

    notes = []
    assert Task.calibrate_on(Own(Own.Options(), DataConfig()), [], [], notes.append, "rows")[0].value == "own"
    assert notes == ["own"]


def test_halves_keep_equal_texts_together_whatever_their_order():
    rng = np.random.default_rng(1)
    examples = [Example((f"text {i}",), f"{i % 3}") for i in rng.integers(0, 40, 200).tolist()]
    halves = two_halves(examples, lambda e: e.target)
    half_of = {}
    for example, half in zip(examples, halves.tolist(), strict=True):
        assert half_of.setdefault(example.texts, half) == half
    assert abs(sum(half_of.values()) - len(half_of) / 2) <= 1
    order = rng.permutation(200)
    assert (two_halves([examples[i] for i in order], lambda e: e.target) == halves[order]).all()


@pytest.mark.parametrize("n", [1, 2])
def test_a_single_row_teaches_little_and_breaks_nothing(n):
    task, notes = fitted(calibration="auto"), []
    task.calibrate(task.decode_to_score(torch.zeros(n, 3), None), examples_of(LABELS[:n]), notes.append)
    assert task.calibration.temperature == 1.0
    assert bool(task.calibration.after) == (n == 2)
    assert any("stays 1" in note for note in notes)


@pytest.mark.parametrize("name", ["classify", "regress", "match"])
def test_the_state_of_an_uncalibrated_task_is_all_of_it(name):
    """The cache of data sets compares the attributes of a fitted task with those of a restored one."""
    targets = {"classify": LABELS, "regress": [1.0, 2.0], "match": LABELS}[name]
    task = fitted(
        name, targets=targets, calibration="auto", **({"loss": "softmax"} if name == "match" else {})
    )
    again = load_task(name)(task.options, DataConfig())
    again.load_state(task.state())
    assert "calibration" not in vars(again)
    assert vars(again).keys() - {"text_columns"} == vars(task).keys() - {"text_columns"}
