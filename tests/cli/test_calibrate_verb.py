"""`bertune calibrate` and `predict --coverage` as a user calls them."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import make_encoder
from tests.encoders.test_int8 import on_such_processors
from typer.testing import CliRunner

import bertune
from bertune.cli.app import app
from bertune.errors import ConfigError

FORMAT_1 = Path(__file__).parents[1] / "fixtures" / "format-1"
TEXTS = ["the dog is good", 'a "big", red house', "天 很 好", "a very awful cat , is it ?", "one two three"]
TASKS = {
    "binary": ("classify", lambda n: "yes" if (n * 7) % 10 < 4 else "no", []),
    "three labels": ("classify", lambda n: ["a", "b", "很好"][(n * 7) % 10 % 3], []),
    "pairs": ("classify", lambda n: "ab"[(n * 7) % 10 < 4], []),
    "several labels": ("classify", lambda n: [["a"], ["a", "b"], ["很好"], []][(n * 7) % 10 % 4], []),
    "number": ("regress", lambda n: (n * 7) % 10 / 3, []),
    "match": ("match", lambda n: "ab"[(n * 7) % 10 < 4], ["options.loss=softmax"]),
    "scores": ("match", lambda n: (n * 7) % 10 / 3, ["options.loss=cosent"]),
}
LEARNT = {
    "binary": "temperature ",
    "three labels": "temperature ",
    "pairs": "temperature ",
    "several labels": "Platt scaling of each label",
    "number": "errors for intervals",
    "match": "temperature ",
}


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def rows_of(kind, numbers):
    """Rows whose target has little to do with their text, so that a model is never right in all."""
    parts = ("text", "text_b") if kind in {"pairs", "match", "scores"} else ("text",)
    return [
        {**{part: f"{TEXTS[n % 5]} {n % 40} {part[4:]}" for part in parts}, "label": TASKS[kind][1](n)}
        for n in numbers
    ]


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    """A folder of each kind, trained for a few steps; asked for, made once."""
    made = {}

    def get(kind, *settings):
        if (kind, *settings) not in made:
            folder = tmp_path_factory.mktemp("calibrated")
            train, dev = (write(folder / f"{name}.jsonl", rows_of(kind, numbers))
                          for name, numbers in (("train", range(40)), ("dev", range(40, 100))))  # fmt: skip
            task, _, extra = TASKS[kind]
            found = call(
                "train", task, f"data.train={train}", f"data.dev={dev}", f"model={tiny}",
                f"out={folder / 'out'}", "train.max_steps=4", "train.learning_rate=1e-3", *extra, *settings,
            )  # fmt: skip
            assert found.exit_code == 0, found.output
            made[(kind, *settings)] = folder, found.stderr
        return made[(kind, *settings)]

    return get


@pytest.fixture
def model(trained, tmp_path):
    """A copy of such a folder, and a file of 80 new rows with targets."""

    def get(kind, *settings):
        folder, _ = trained(kind, *settings)
        shutil.copytree(folder / "out", tmp_path / "out")
        return tmp_path / "out", write(tmp_path / "new.jsonl", rows_of(kind, range(100, 180)))

    return get


def hashes(folder):
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in folder.rglob("*")
        if p.is_file()
    }


def predicted(folder, file, *words):
    found = call("predict", folder, file, "--format", "jsonl", "-q", *words)
    assert found.exit_code == 0, found.output
    return [json.loads(line) for line in found.stdout.splitlines()]


@pytest.mark.parametrize("kind", LEARNT)
def test_it_is_learnt_saved_used_and_taken_away(kind, model):
    folder, file = model(kind)
    before, files = predicted(folder, file), hashes(folder)
    found = call("calibrate", folder, file)
    assert found.exit_code == 0, found.output
    assert found.stdout.startswith(f"calibration: {LEARNT[kind]}")
    assert "80 rows of new.jsonl" in found.stdout
    assert found.stdout.endswith(f"saved in {folder}\n")
    assert all(len(line) <= 80 for line in found.stdout.splitlines()[:-1])
    changed = {name for name, value in hashes(folder).items() if files.get(name) != value}
    assert changed == {"bertune.json", "README.md"}
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card.count("## Calibration\n") == 1 and "learnt on 80 rows of new.jsonl" in card
    after = predicted(folder, file, "--coverage", "0.9")
    assert after == [
        {
            **a,
            **{
                n: v
                for n, v in b.items()
                if n in {"prediction", "confidence", "probabilities", "prediction_set"}
            },
        }
        for a, b in zip(before, after, strict=True)
    ]
    if kind == "number":
        assert all(low < row["prediction"] < high for row in after for low, high in [row["prediction_set"]])
        inside = [row["prediction_set"][0] <= row["label"] <= row["prediction_set"][1] for row in after]
    elif kind == "several labels":
        assert all(set(row["prediction_set"]) <= {"a", "b", "很好"} for row in after)
        inside = [label in row["prediction_set"] for row in after for label in row["label"]]
    else:
        assert [row["prediction"] for row in after] == [row["prediction"] for row in before]
        assert [row["probabilities"] for row in after] != [row["probabilities"] for row in before]
        inside = [row["label"] in row["prediction_set"] for row in after]
    assert np.mean(inside) >= 0.9  # of the rows that it was learnt on
    removed = call("calibrate", folder, "--method", "none")
    assert removed.exit_code == 0, removed.output
    assert removed.stdout.splitlines()[0] == "calibration: none: probabilities are the model's own"
    assert hashes(folder) == files
    assert predicted(folder, file) == before


def test_json_says_the_same(model):
    folder, file = model("several labels")
    found = call("calibrate", folder, file, "--json", "--cost", "false_negative=5", "-q")
    report = json.loads(found.stdout)
    assert report["method"] == "platt" and report["num_rows"] == 80
    assert report["rule"] == "false_positive 1, false_negative 5 on the rows of new.jsonl"
    assert set(report["thresholds"]) == {"a", "b", "很好"}
    assert sum(b["rows"] for b in report["reliability_after"]) == 80 * 3
    assert set(report["before"]) == set(report["after"]) == {"nll", "brier", "ece", "ece_adaptive"}
    state = json.loads((folder / "bertune.json").read_text(encoding="utf-8"))["state"]["calibration"]
    assert state["thresholds"] == list(report["thresholds"].values())
    for row in predicted(folder, file):
        p = row["probabilities"]
        near = any(abs(p[label] - t) < 1e-6 for label, t in report["thresholds"].items())
        assert near or row["prediction"] == [x for x, t in report["thresholds"].items() if p[x] >= t]


def test_thresholds_of_two_labels(model):
    folder, file = model("binary")
    found = call(
        "calibrate", folder, file, "--cost", "false_positive=1", "--cost", "false_negative=9", "--method=none"
    )
    assert found.exit_code == 0, found.output
    assert "probabilities are the model's own; thresholds and coverage" in found.stdout
    state = json.loads((folder / "bertune.json").read_text(encoding="utf-8"))["state"]["calibration"]
    (threshold,) = state["thresholds"]
    assert 0 < threshold < 0.5
    rows = predicted(folder, file)
    assert [row["prediction"] for row in rows] == [
        "yes" if row["probabilities"]["yes"] >= threshold else "no" for row in rows
    ]
    assert call("calibrate", folder, file).exit_code == 0  # without thresholds, the more probable label again
    assert all(row["confidence"] >= 0.5 for row in predicted(folder, file))
    precise = call("calibrate", folder, file, "--target-precision", "0.99")
    assert (
        "0.99 is not reached on the rows of new.jsonl; the highest precision there is: yes" in precise.stderr
    )


def test_it_is_learnt_again_from_the_models_own_probabilities(model):
    folder, file = model("three labels")
    first = call("calibrate", folder, file).stdout
    state = (folder / "bertune.json").read_text(encoding="utf-8")
    assert call("calibrate", folder, file).stdout == first
    assert (folder / "bertune.json").read_text(encoding="utf-8") == state


def test_python_gives_the_same(model):
    folder, file = model("three labels")
    report = bertune.calibrate(folder, file)
    assert report.after is not None and report.calibration.method == "temperature"
    rows = list(bertune.predict(folder, file, coverage=0.8).results)
    pipeline = bertune.load(folder)
    texts = [row.fields["text"] for row, _ in rows]
    assert pipeline.predict(texts, coverage=0.8) == [p for _, p in rows]
    assert all(p.prediction_set is None for p in pipeline.predict(texts))
    with pytest.raises(ConfigError, match="coverage: 2 is not a number"):
        pipeline.predict(texts, coverage=2)
    assert bertune.calibrate(folder, method="none").calibration is None


def test_evaluate_uses_it(model):
    folder, file = model("binary")
    call("calibrate", folder, file, "--method=none", "--cost=false_negative=1e6", "-q")
    confusion = json.loads(call("evaluate", folder, file, "--json", "-q").stdout)["confusion"]
    assert confusion["yes"] == {"no": 0, "yes": 32}


@on_such_processors
def test_int8_uses_it(model):
    folder, file = model("binary")
    own = predicted(folder, file, "--precision", "int8")
    call("calibrate", folder, file, "-q")
    rows = predicted(folder, file, "--precision", "int8", "--coverage", "0.9")
    temperature = bertune.load(folder).task.calibration.temperature
    for row, before in zip(rows, own, strict=True):
        ratio, old = (r["probabilities"]["yes"] / r["probabilities"]["no"] for r in (row, before))
        assert ratio == pytest.approx(old ** (1 / temperature), rel=1e-3)
        assert set(row["prediction_set"]) <= {"yes", "no"}


def test_csv_has_a_list_in_json(model):
    folder, file = model("several labels")
    call("calibrate", folder, file, "-q")
    found = call("predict", folder, file, "--format", "csv", "--coverage", "0.8", "-q")
    rows = list(csv.DictReader(io.StringIO(found.stdout)))
    assert list(rows[0])[-5:] == ["prediction", "prediction_set", "p_a", "p_b", "p_很好"]
    assert all(isinstance(json.loads(row["prediction_set"]), list) for row in rows)


def test_a_training_run_learns_it_on_its_dev_rows(trained):
    folder, said = trained("three labels", "options.calibration=auto")
    assert "note: calibration: temperature " in said and "learnt on 60 dev rows" in said
    for saved in (folder / "out", folder / "out" / "last"):
        state = json.loads((saved / "bertune.json").read_text(encoding="utf-8"))["state"]
        assert state["calibration"]["num_rows"] == 60
    dev = folder / "dev.jsonl"
    again = folder / "again"
    if not again.exists():
        shutil.copytree(folder / "out", again)
    assert call("calibrate", again, dev, "-q").exit_code == 0
    learnt, relearnt = (
        json.loads((f / "bertune.json").read_text(encoding="utf-8"))["state"]["calibration"]
        for f in (folder / "out", again)
    )
    assert relearnt["temperature"] == pytest.approx(learnt["temperature"], rel=1e-3)
    card = (folder / "out" / "README.md").read_text(encoding="utf-8")
    assert "## Calibration" in card and "learnt on 60 dev rows" in card
    assert "What transformers leaves out: the calibration of probabilities" in card


def test_the_scores_of_a_run_do_not_depend_on_a_temperature(trained):
    plain, calibrated = (
        json.loads((trained("three labels", *words)[0] / "out" / "scores.json").read_text(encoding="utf-8"))
        for words in ([], ["options.calibration=auto"])
    )
    assert plain["dev"] == calibrated["dev"]


def test_known_rows_are_warned_of(model, trained):
    folder, _ = model("binary")
    source, _ = trained("binary")
    assert "is a training file of this model" in call("calibrate", folder, source / "train.jsonl").stderr
    assert "is the dev file of this model" in call("calibrate", folder, source / "dev.jsonl").stderr


def test_a_folder_of_an_earlier_format_is_calibrated(tmp_path):
    shutil.copytree(FORMAT_1 / "classify", tmp_path / "old")
    rows = [{"text": text, "label": "pos" if n % 2 else "neg"} for n, text in enumerate(TEXTS * 4)]
    old = json.loads((tmp_path / "old" / "bertune.json").read_text(encoding="utf-8"))
    labels = old["state"]["labels"]
    rows = [{"text": text, "label": labels[n % len(labels)]} for n, text in enumerate(TEXTS * 4)]
    if old["state"]["multi"]:
        rows = [{**row, "label": [row["label"]]} for row in rows]
    file = write(tmp_path / "new.jsonl", rows)
    words = ["data.columns=null", "--device", "cpu"]
    found = call("calibrate", tmp_path / "old", file, *words)
    assert found.exit_code == 0, found.output
    new = json.loads((tmp_path / "old" / "bertune.json").read_text(encoding="utf-8"))
    assert new["state"].pop("calibration")["num_rows"] == 20
    assert new == old


BAD = {
    "no file": (["MODEL"], "give a FILE with targets"),
    "no folder": (["nowhere", "FILE"], "nowhere: no such folder"),
    "a package": (["minilm", "FILE"], "minilm: no such folder"),
    "no such file": (["MODEL", "nowhere.csv"], "nowhere.csv"),
    "method": (["MODEL", "FILE", "--method", "isotonic"], "'isotonic' is none of auto, temperature, platt, none"),
    "platt": (["MODEL", "FILE", "--method", "platt"], "use temperature"),
    "precision": (["MODEL", "FILE", "--target-precision", "2"], "target_precision: 2.0 is not a number between"),
    "cost": (["MODEL", "FILE", "--cost", "5"], "--cost '5': write a name and a number"),
    "cost name": (["MODEL", "FILE", "--cost", "fp=5"], "'fp' is neither false_positive nor false_negative"),
    "cost twice": (["MODEL", "FILE", "--cost", "false_positive=5", "--cost", "false_positive=5"], "given twice"),
    "cost nan": (["MODEL", "FILE", "--cost", "false_positive=nan"], "must be a number above 0"),
    "all at once": (["MODEL", "FILE", "--method", "x", "--target-precision", "0", "--cost", "a=1"], "; target_precision: 0.0"),
    "three labels": (["MODEL", "FILE", "--target-precision", "0.9"], "the most probable of 3 labels"),
    "empty file": (["MODEL", "EMPTY"], "empty"),
    "no targets": (["MODEL", "TEXTS"], "label"),
    "unknown label": (["MODEL", "OTHER"], "label 'zzz' is not among the 3 labels"),
    "setting": (["MODEL", "FILE", "train.epochs=3"], "only these can be given here"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_and_nothing_is_written(name, model, tmp_path):
    folder, file = model("three labels")
    files = {
        "MODEL": folder,
        "FILE": file,
        "EMPTY": write(tmp_path / "empty.jsonl", []),
        "TEXTS": write(tmp_path / "texts.jsonl", [{"text": "a dog"}]),
        "OTHER": write(tmp_path / "other.jsonl", [{"text": "a dog", "label": "zzz"}]),
    }
    before = hashes(folder)
    words, message = BAD[name]
    found = call("calibrate", *(files.get(word, word) for word in words))
    assert found.exit_code == 2, found.output
    assert message in found.stderr
    assert found.stdout == ""
    assert hashes(folder) == before


@pytest.mark.parametrize(
    ("kind", "coverage", "message"),
    [
        ("binary", "1.5", "coverage: 1.5 is not a number between 0 and 1"),
        ("binary", "0.9", "bertune calibrate MODEL FILE"),
        ("scores", "0.9", "predicts similarities, which have no sets"),
    ],
)
def test_a_coverage_that_cannot_be_is_refused(kind, coverage, message, model, tmp_path):
    folder, file = model(kind)
    found = call("predict", folder, file, "--coverage", coverage, "-o", tmp_path / "x.csv")
    assert found.exit_code == 2
    assert message in found.stderr
    assert not (tmp_path / "x.csv").exists()


def test_similarities_are_refused_by_name(model):
    folder, file = model("scores")
    found = call("calibrate", folder, file)
    assert found.exit_code == 2
    assert "this model of task match predicts similarities" in found.stderr


def test_entities_and_vectors_are_refused_by_name(tmp_path):
    tiny = make_encoder(tmp_path / "tiny")
    cases = {
        "tag": [{"words": t.split(), "tags": ["O" for _ in t.split()[1:]] + ["B-X"]} for t in TEXTS] * 4,
        "embed": [{"text": f"{t} {n}", "text_b": t} for n in range(4) for t in TEXTS],
    }
    for task, rows in cases.items():
        file = write(tmp_path / f"{task}.jsonl", rows)
        folder = tmp_path / task
        bertune.train(
            task, [f"data.train={file}", f"model={tiny}", f"out={folder}", "train.max_steps=1"], quiet=True
        )
        for words in (["calibrate", folder, file], ["predict", folder, file, "--coverage", "0.9"]):
            found = call(*words)
            assert found.exit_code == 2
            assert f"task {task} has n" in found.stderr
