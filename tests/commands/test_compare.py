"""`bertune.compare` from folders to figures, for every task, on tiny models."""

from __future__ import annotations

import csv
import json
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from tests.sentence_folders import save_sentence_folder

import bertune
from bertune.artifact.artifact import Artifact
from bertune.heads.model import Model
from bertune.inference import pairing
from bertune.inference.comparison import Comparison
from bertune.metrics import paired

WORDS = [
    "good",
    "bad",
    "fine",
    "awful",
    "great",
    "poor",
    "red",
    "green",
    "blue",
    "round",
    "big",
    "dog",
    "cat",
]


def text(n: int, length: int = 4) -> str:
    return " ".join(np.random.default_rng(n).choice(WORDS, length).tolist())


def rows_of(kind: str, count: int = 24, start: int = 0) -> list[dict[str, object]]:
    numbers = range(start, start + count)
    if kind == "classify":
        return [{"text": text(n), "label": "abc"[n % 3]} for n in numbers]
    if kind == "binary":
        return [{"text": text(n), "label": "yn"[n % 2]} for n in numbers]
    if kind == "pairs":
        return [{"text": text(n), "text_b": text(n + 1), "label": "yn"[n % 2]} for n in numbers]
    if kind == "multi":
        return [{"text": text(n), "label": [x for x, k in zip("abc", (2, 3, 5), strict=True) if n % k == 0]}
                for n in numbers]  # fmt: skip
    if kind == "regress":
        return [{"text": text(n), "label": n % 7 / 2} for n in numbers]
    if kind == "match":
        return [{"text": text(n), "text_b": text(n + n % 2), "label": 1 - n % 2} for n in numbers]
    if kind == "scores":
        return [{"text": text(n), "text_b": text(n + n % 3), "label": n % 6 / 2} for n in numbers]
    if kind == "nli":
        labels = ["entailment", "neutral", "contradiction"]
        return [{"text": text(n), "text_b": text(n + 1), "label": labels[n % 3]} for n in numbers]
    if kind == "embed":
        return [{"text": text(n), "text_b": text(n, 3)} for n in numbers]
    if kind == "single":
        return [{"text": text(n)} for n in numbers]
    assert kind in {"tag", "tags"}
    tags = ["B-X", "I-X", "O", "B-Y"] if kind == "tag" else ["NN", "VB", "DT", "NN"]
    return [
        {"tokens": text(n).split(), "tags": np.roll(tags, n if kind == "tags" else 0).tolist()}
        for n in numbers
    ]


SETTINGS: dict[str, dict[str, object]] = {
    "classify": {"task": "classify"},
    "binary": {"task": "classify"},
    "pairs": {"task": "classify"},
    "multi": {"task": "classify"},
    "regress": {"task": "regress"},
    "match": {"task": "match"},
    "scores": {"task": "match"},
    "nli": {"task": "match"},
    "embed": {"task": "embed"},
    "single": {"task": "embed"},
    "tag": {"task": "tag"},
    "tags": {"task": "tag", "options": {"scheme": "none"}},
}


@pytest.fixture(scope="module")
def model(tiny, tmp_path_factory) -> Callable[..., str]:
    """A model of a kind of rows, trained for a few steps and made once; others with another seed."""
    made: dict[tuple[str, int], str] = {}
    root = tmp_path_factory.mktemp("compared")

    def get(kind: str, seed: int = 1, rows: list[dict[str, object]] | None = None) -> str:
        key = (kind if rows is None else f"{kind}-{len(made)}", seed)
        if key not in made:
            folder = root / f"{key[0]}-{seed}"
            file = root / f"{key[0]}.jsonl"
            file.write_text("".join(json.dumps(row) + "\n" for row in rows or rows_of(kind)))
            train = {"max_steps": 10 * seed, "batch_size": 8, "learning_rate": 3e-3}
            data = {"train": str(file), "dev_fraction": 0.25}
            run = {"model": str(tiny), "seed": seed, "out": str(folder), "data": data, "train": train}
            bertune.train({**SETTINGS[kind], **run}, quiet=True)
            made[key] = str(folder)
        return made[key]

    return get


MAIN = {
    "classify": "accuracy",
    "binary": "accuracy",
    "pairs": "accuracy",
    "multi": "f1_micro",
    "regress": "pearson",
    "match": "average_precision",
    "scores": "spearman",
    "nli": "accuracy",
    "embed": "ndcg@10",
    "single": "uniformity",
    "tag": "f1",
    "tags": "accuracy",
}


def check_pair(found: Comparison, kind: str) -> None:
    """The figures of a pair are those of `evaluate`, and fit each other."""
    (pair,) = found.pairs
    a, b = found.models
    assert pair.main.difference == pytest.approx(b.scores.main_value - a.scores.main_value)
    if kind == "single":
        assert (pair.main.interval, pair.main.p_value, pair.better) == (None, None, None)
        return
    low, high = pair.main.interval
    assert low <= high
    assert 0 < pair.main.p_value <= 1
    assert pair.p_holm == pair.main.p_value
    has_labels = kind in {"classify", "binary", "pairs", "multi", "nli", "tag", "tags"}
    assert (pair.mcnemar is not None) == has_labels
    assert (pair.error_test is not None) == (not has_labels)
    assert bool(pair.per_label) == has_labels
    for label in pair.per_label:
        scores = (a.scores.per_label[label.label], b.scores.per_label[label.label])
        assert (label.f1_a, label.f1_b) == pytest.approx((scores[0]["f1"], scores[1]["f1"]))
        assert label.support == scores[0]["support"]
    sizes = [abs(label.difference) for label in pair.per_label]
    assert sizes == sorted(sizes, reverse=True)
    if pair.mcnemar is not None:
        m = pair.mcnemar
        assert m.both_right + m.only_a + m.only_b + m.both_wrong == found.num_rows
        expected = reference_mcnemar([[m.both_right, m.only_a], [m.only_b, m.both_wrong]], exact=m.exact)
        assert m.p_value == pytest.approx(float(expected.pvalue))
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize("kind", SETTINGS)
def test_every_task(kind, model, write):
    file = write("dev.jsonl", rows_of(kind, 30, start=100))
    found = bertune.compare([model(kind), model(kind, 2)], file)
    assert found.metric == MAIN[kind]
    assert found.num_rows == 30
    for each in found.models:
        alone = bertune.evaluate(each.folder, file)
        assert each.scores.values == pytest.approx(alone.scores.values)
        assert each.scores.intervals.keys() == alone.scores.intervals.keys()
        for name, interval in each.scores.intervals.items():
            assert interval == pytest.approx(alone.scores.intervals[name])
    check_pair(found, kind)


METRICS = {
    "classify": ["f1_macro", "f1_micro", "f1_weighted", "mcc"],
    "binary": ["f1", "mcc"],
    "multi": ["accuracy", "f1_macro", "f1_weighted"],
    "regress": ["spearman", "mse", "mae"],
    "match": ["accuracy", "f1"],
    "scores": ["pearson"],
    "nli": ["f1_macro", "mcc"],
    "embed": ["mrr@10", "recall@1"],
    "tag": ["f1_macro", "boundary_f1", "type_f1"],
    "tags": ["f1_macro"],
}


@pytest.mark.parametrize(("kind", "metric"), [(k, m) for k, metrics in METRICS.items() for m in metrics])
def test_every_metric_by_weights_is_that_of_the_task(kind, metric, model, write):
    """On all rows, and on a resample: the task scores rows drawn twice as it would score rows given twice."""
    artifact = bertune.artifact.read.read_artifact(model(kind))
    task = artifact.task
    task.options = task.options.model_copy(update={"metric": metric})
    examples = [task.read(row) for row in _rows(rows_of(kind, 30, start=100))]
    predictions = artifact.pipeline().predict_examples(examples, to_score=True).predictions
    rows = pairing.paired_rows([task, task], metric, [predictions, predictions], examples)
    metrics = rows.pair(0, 1)
    value = metrics.a(metrics.counts[None].astype(float))
    scores = task.score(predictions, examples, intervals=False)
    assert np.reshape(value, -1)[0] == pytest.approx(scores.values[metric])
    own = pairing.OwnTaskRows(task, metric, [predictions], examples).pair(0, 0)
    assert np.reshape(own.a(own.counts[None]), -1)[0] == pytest.approx(scores.values[metric])


def _rows(records):
    from bertune.data.list_text import SentenceLists
    from bertune.types import Location, Row

    lists = SentenceLists("text", "label")
    for number, record in enumerate(records, 1):
        fields = dict(record)
        if "tokens" in fields:
            fields = {"text": fields["tokens"], "label": fields["tags"]}
        yield lists.unpack(Row(fields, Location("rows.jsonl", number), record))


def test_changing_places(model, write):
    file = write("dev.jsonl", rows_of("classify", 40, start=100))
    models = [model("classify"), model("classify", 2)]
    (forth,), (back,) = (bertune.compare(m, file).pairs for m in (models, models[::-1]))
    assert forth.main.difference == -back.main.difference
    assert forth.main.p_value == back.main.p_value
    assert forth.main.interval == pytest.approx((-back.main.interval[1], -back.main.interval[0]))
    assert (forth.mcnemar.only_a, forth.mcnemar.only_b) == (back.mcnemar.only_b, back.mcnemar.only_a)
    assert forth.num_disagreements == back.num_disagreements


def test_another_order_of_rows_changes_no_count(model, write):
    rows = rows_of("classify", 40, start=100)
    models = [model("classify"), model("classify", 2)]
    (first,) = bertune.compare(models, write("a.jsonl", rows)).pairs
    (second,) = bertune.compare(models, write("b.jsonl", rows[::-1])).pairs
    assert first.mcnemar == second.mcnemar
    assert first.main.difference == pytest.approx(second.main.difference)
    assert first.main.interval == pytest.approx(second.main.interval, abs=0.03)


def test_a_copy_of_a_model_differs_in_nothing(model, write, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(model("classify"), copy)
    found = bertune.compare([model("classify"), copy], write("dev.jsonl", rows_of("classify")))
    (pair,) = found.pairs
    assert (pair.main.difference, pair.main.interval, pair.main.p_value) == (0, (0, 0), 1)
    assert (pair.mcnemar.p_value, pair.better, found.num_disagreements) == (1, None, 0)


def test_labels_in_another_order_are_the_same_problem(model, write):
    """The labels of a model are compared by their text."""
    folder = Path(model("binary", 2, rows_of("binary")))
    metadata = json.loads((folder / "bertune.json").read_text())
    metadata["state"]["labels"].reverse()
    (folder / "bertune.json").write_text(json.dumps(metadata))
    file = write("dev.jsonl", rows_of("binary", 30, start=100))
    found = bertune.compare([model("binary"), folder], file)
    for each in found.models:
        assert each.scores.values["accuracy"] == bertune.evaluate(each.folder, file).scores.values["accuracy"]


def test_three_models_are_corrected_for_three_pairs(model, write):
    models = [model("classify", seed) for seed in (1, 2, 3)]
    found = bertune.compare(models, write("dev.jsonl", rows_of("classify", 40, start=100)))
    assert [(pair.a, pair.b) for pair in found.pairs] == [
        ("classify-1", "classify-2"),
        ("classify-1", "classify-3"),
        ("classify-2", "classify-3"),
    ]
    assert [p.p_holm for p in found.pairs] == pytest.approx(
        paired.holm([p.main.p_value for p in found.pairs])
    )
    tests = [pair.mcnemar.p_value for pair in found.pairs]
    assert [pair.test_p_holm for pair in found.pairs] == pytest.approx(paired.holm(tests))


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [*((kind, ".jsonl") for kind in SETTINGS if kind != "single"), ("multi", ".csv"), ("tag", ".tsv")],
)
def test_the_rows_on_which_models_differ_are_complete_and_in_order(kind, suffix, model, write, tmp_path):
    rows = rows_of(kind, 30, start=100)
    file, output = write("dev.jsonl", rows), tmp_path / f"out{suffix}"
    models = [model(kind), model(kind, 2)]
    found = bertune.compare(models, file, output=output)
    if suffix == ".jsonl":
        written = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    else:
        with output.open(encoding="utf-8", newline="") as lines:
            written = list(csv.DictReader(lines, delimiter="," if suffix == ".csv" else "\t"))
    numbers = [int(str(row["location"]).rsplit(":", 1)[1]) for row in written]
    assert numbers == sorted(set(numbers))
    assert len(written) == found.num_disagreements == found.pairs[0].num_disagreements
    if kind == "embed":
        assert all(f"ndcg@10_{m.name}" in row for row in written for m in found.models)
        return
    values = [[p.value for _, p in bertune.predict(folder, file).results] for folder in models]
    if kind == "tag" or kind == "tags":
        values = [[[tuple(e)[:3] for e in spans] for spans in each] for each in values]
    same = np.isclose if isinstance(values[0][0], float) else (lambda x, y, *_: x == y)
    differ = [n for n, (x, y) in enumerate(zip(*values, strict=True), 1) if not same(x, y, 1e-6, 1e-6)]
    assert numbers == differ
    for row, number in zip(written, numbers, strict=True):
        gold = rows[number - 1].get("label")
        if suffix == ".jsonl" and kind not in {"tag", "tags"}:
            assert {k: row[k] for k in rows[0]} == rows[number - 1]
            assert row["gold"] == gold
            if kind in {"classify", "binary", "pairs", "nli"}:
                for m in found.models:
                    assert row[f"right_{m.name}"] == (row[f"prediction_{m.name}"] == gold)
                    assert 0 < row[f"confidence_{m.name}"] <= 1
        assert row["location"] == f"{file}:{number}"


def test_columns_of_the_file_keep_their_names(model, write, tmp_path):
    rows = [{**row, "gold": "mine", "location": "here"} for row in rows_of("classify", 30, start=100)]
    output = tmp_path / "out.jsonl"
    bertune.compare([model("classify"), model("classify", 2)], write("dev.jsonl", rows), output=output)
    lines = output.read_text().splitlines()
    assert lines
    for row in map(json.loads, lines):
        assert (row["gold"], row["location"]) == ("mine", "here")
        assert row["gold_"] == row["label"]
        assert "dev.jsonl:" in row["location_"]


def test_one_model_is_in_memory_at_a_time(model, write, monkeypatch):
    alive: list[weakref.ref[Model]] = []
    most = 0
    build = Artifact.__init__

    def init(self, *args, **kwargs):
        nonlocal most
        build(self, *args, **kwargs)
        others = [ref for ref in alive if ref() is not None and ref() is not self.model]
        most = max(most, len(others))
        if not any(ref() is self.model for ref in alive):
            alive.append(weakref.ref(self.model))

    monkeypatch.setattr(Artifact, "__init__", init)
    models = [model("classify", seed) for seed in (1, 2, 3)]
    alive.clear()
    most = 0
    bertune.compare(models, write("dev.jsonl", rows_of("classify")))
    assert len(alive) == 6  # each is opened to look at it, and then to predict
    assert most == 0


def test_rows_are_read_once(model, write, monkeypatch):
    from bertune.tasks.classify import Classify

    reads = []
    read = Classify.read
    models = [model("classify"), model("classify", 2)]  # perhaps trained here, on rows of their own
    monkeypatch.setattr(
        Classify, "read", lambda self, row: (reads.append(row.location.line), read(self, row))[1]
    )
    bertune.compare(models, write("dev.jsonl", rows_of("classify", 20)))
    assert reads == list(range(1, 21))


def test_large_files_are_read_from_disk_with_the_same_result(model, write, tmp_path, monkeypatch):
    monkeypatch.setenv("BERTUNE_CACHE", str(tmp_path / "cache"))
    file = write("dev.jsonl", rows_of("classify", 30, start=100))
    models = [model("classify"), model("classify", 2)]
    plain, mapped = (bertune.compare(models, file, [f"data.cache={c}"]) for c in ("off", "on"))
    assert plain.to_json() == mapped.to_json()


def test_one_row_has_no_test(model, write):
    found = bertune.compare(
        [model("classify"), model("classify", 2)], write("dev.jsonl", rows_of("classify", 1))
    )
    (pair,) = found.pairs
    assert (pair.main.interval, pair.main.p_value, pair.better) == (None, None, None)
    assert pair.mcnemar.p_value == 1


def test_a_folder_of_sentence_transformers_beside_a_model_of_scores(model, tiny, write, tmp_path):
    folder = tmp_path / "st"
    save_sentence_folder(tiny, folder)
    file = write("dev.jsonl", rows_of("scores", 30, start=100))
    found = bertune.compare([folder, model("scores")], file)
    assert (found.metric, found.task) == ("spearman", "match")
    assert found.models[0].scores.values == pytest.approx(bertune.evaluate(folder, file).scores.values)
    searched = bertune.compare([folder, model("embed")], write("s.jsonl", rows_of("embed", 30, start=100)))
    assert (searched.unit, searched.metric) == ("queries", "ndcg@10")
