"""`bertune tune` as a user runs it: from a run file to a model that its run file repeats to the bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import bertune
from bertune.cli.app import app

WORDS = {"good": "pos", "great": "pos", "fine": "pos", "bad": "neg", "awful": "neg", "poor": "neg"}
NOUNS = ("dog", "cat", "tree", "house", "car", "book")
ROWS = [{"text": f"the {n} is {w}", "label": label, "who": n} for w, label in WORDS.items() for n in NOUNS]
SEARCH = {"train.learning_rate": {"log_uniform": [1e-4, 1e-2]}, "train.epochs": {"int": [1, 3]}}


@pytest.fixture
def bench(tiny, write, tmp_path):
    class Bench:
        rows = write("rows.jsonl", ROWS)
        dev = write("dev.jsonl", [{**row, "text": row["text"] + " !"} for row in ROWS[::2]])
        out = tmp_path / "out"

        def settings(self, **changes):
            settings = {
                "task": "classify",
                "model": str(tiny),
                "data": {"train": str(self.rows), "dev": str(self.dev)},
                "train": {"precision": "fp32", "batch_size": 8, "learning_rate": 3e-3},
                "tune": {"trials": 4, "startup_trials": 2, "evaluations": 2},
                "search": SEARCH,
            }
            for section, values in changes.items():
                is_section = isinstance(values, dict) and section != "search"
                settings[section] = {**settings.get(section, {}), **values} if is_section else values
            return settings

        def file(self, **changes):
            path = tmp_path / "run.yaml"
            path.write_text(yaml.safe_dump(self.settings(**changes)), encoding="utf-8")
            return path

        def call(self, *words):
            result = CliRunner().invoke(app, ["tune", *map(str, words)])
            return result.exit_code, result.stdout, result.stderr

    return Bench()


def test_from_a_run_file_to_a_model(bench, tmp_path):
    code, out, said = bench.call(bench.file(), f"out={bench.out}")
    assert code == 0, said
    assert out == f"{bench.out}\n"
    names = {path.name for path in bench.out.iterdir()}
    wanted = {"tune.yaml", "study.db", "trials.jsonl", "winner.yaml", "results.json", "report.html", "model"}
    assert names >= wanted
    assert "best_trial" not in names
    results = json.loads((bench.out / "results.json").read_text(encoding="utf-8"))
    trials = [json.loads(line) for line in (bench.out / "trials.jsonl").read_text().splitlines()]
    assert len(trials) == 4
    best = trials[results["best_trial"]]
    assert results["search"] == best["score"] == max(t["score"] for t in trials if t["state"] == "complete")
    assert results["naive"] == max(score for t in trials for score in t["evaluations"])
    assert results["search_of_own_settings"] == trials[0]["score"]
    assert results["rows"] == {"train": 29, "held_out": 7, "dev": 18}
    again = bertune.train(str(bench.out / "winner.yaml"), [f"out={tmp_path / 'again'}"], quiet=True)
    for name in ("model.safetensors", "history.jsonl"):
        first, second = (folder / name for folder in (bench.out / "model", again.folder))
        if name == "model.safetensors":
            assert first.read_bytes() == second.read_bytes()
    assert results["refit"]["dev"] == again.scores["dev"].to_json()
    history = [json.loads(line) for line in (bench.out / "model/history.jsonl").read_text().splitlines()]
    assert sum(line["event"] == "dev" for line in history) == 1  # the dev rows are used once
    assert "used once: the number to report" in " ".join(said.split())
    assert not (bench.out / "model" / "last").exists()  # it would be the same model
    evaluated = bertune.evaluate(bench.out / "model", bench.dev)
    assert evaluated.scores.main_value == results["refit"]["dev"]["values"]["accuracy"]


def test_the_folder_goes_on_with_more_trials_and_trains_the_new_winner(bench):
    first = bertune.tune(bench.settings(out=str(bench.out)), trials=2)
    assert len(first.study.trials) == 2
    code, _, said = bench.call(bench.out, "--resume", "--trials", "6")
    assert code == 0, said
    results = json.loads((bench.out / "results.json").read_text(encoding="utf-8"))
    assert sum(results["trials"].values()) == 6
    is_new = results["best_trial"] != first.best.number
    assert results["dev_uses"] == 1 + is_new
    winner = (bench.out / "winner.yaml").read_text(encoding="utf-8")
    assert (bench.out / "model" / "run.yaml").read_text(encoding="utf-8") == winner
    code, _, said = bench.call(bench.out, "--resume", "--trials", "6")  # nothing is left to do
    assert code == 0, said
    assert "is trained again" not in said


def test_other_settings_are_refused_when_it_goes_on(bench):
    bertune.tune(bench.settings(out=str(bench.out)), trials=2)
    code, _, said = bench.call(bench.out, "--resume", "train.batch_size=4", "tune.holdout=0.3")
    assert code == 2
    assert "settings have changed since the search began: train.batch_size, tune.holdout" in said
    search = {**SEARCH, "train.epochs": {"int": [1, 4]}}
    code, _, said = bench.call(bench.file(search=search), f"out={bench.out}", "--resume")
    assert code == 2
    assert "search.train.epochs" in said


def test_without_a_space_the_tasks_own_is_searched(bench):
    result = bertune.tune(bench.settings(search={}, out=str(bench.out)), trials=3)
    names = {name for trial in result.study.trials for name in trial.settings}
    assert {"train.learning_rate", "train.epochs", "options.pooling"} <= names


@pytest.mark.parametrize("tune", [{"folds": 3}, {"group": "who"}, {"folds": 3, "group": "who"}])
def test_folds_and_groups(tune, bench):
    result = bertune.tune(bench.settings(tune=tune, out=str(bench.out)), trials=2)
    num_folds = tune.get("folds", 1)
    assert len(result.study.trials[0].evaluations) == 2 * num_folds
    train, held_out = result.study.num_rows
    assert train + held_out == len(ROWS)
    if "group" in tune:
        assert held_out % len(WORDS) == 0  # whole groups


def test_thresholds_that_the_dev_rows_chose_are_said(bench):
    for path in (bench.rows, bench.dev):
        rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
        lines = [json.dumps({**row, "label": [row["label"], row["who"]]}) + "\n" for row in rows]
        Path(path).write_text("".join(lines), encoding="utf-8")
    result = bertune.tune(bench.settings(out=str(bench.out)), trials=1)
    assert result.dev_decides
    assert "chose the thresholds of labels" in " ".join(result.numbers.text())
    fixed = bench.settings(out=f"{bench.out}-fixed", options={"threshold": 0.5})
    assert not bertune.tune(fixed, trials=1).dev_decides


def test_without_refit_the_best_trial_is_kept(bench):
    result = bertune.tune(bench.settings(tune={"refit": False}, out=str(bench.out)))
    assert (result.model, result.scores) == (None, {})
    model = bertune.load(bench.out / "best_trial")
    assert model.predict(["the dog is good"])[0].value in {"pos", "neg"}
    assert not (bench.out / "model").exists()


def test_settings_that_no_trial_can_run_end_the_search(bench):
    search = {"train.weight_decay": {"uniform": [0.0, 0.1]}}
    code, _, said = bench.call(bench.file(search=search, train={"learning_rate": 1e30}), f"out={bench.out}")
    assert code == 2
    assert "all of the first 3 trials failed" in said
    assert "not finite" in said


@pytest.mark.parametrize(
    ("changes", "words", "expected"),
    [
        ({"search": {"train.lerning_rate": {"uniform": [0, 1]}}}, [], ["did you mean 'learning_rate'"]),
        ({"search": {"train.epochs": {"int": [5, 1]}}, "tune": {"trails": 3}}, [], ["[1, 5]", "'trials'"]),
        ({"search": "all"}, [], ["search: must name settings"]),
        ({"tune": []}, [], ["tune"]),
        ({"data": {"train": None}}, [], ["data.train: must be given"]),
        ({"task": "clasify"}, [], ["classify"]),
        ({"train": {"epochz": 1}}, [], ["train.epochz"]),
        ({"tune": {"group": "whom"}}, [], ["tune.group", "did you mean 'who'"]),
        ({"tune": {"folds": 30}}, [], ["tune.folds"]),
        ({}, ["--time", "soon"], ["such as 90s"]),
        ({}, ["--trials", "0"], ["tune.trials"]),
        ({}, ["--resume"], ["say which search"]),
        ({"data": {"train": "missing.jsonl"}}, [], ["missing.jsonl"]),
        ({"model": "no/such/folder"}, [], ["no/such/folder"]),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(changes, words, expected, bench, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = bench.file(**changes)
    out = [] if "--resume" in words else [f"out={bench.out}"]
    before = sorted(path.name for path in tmp_path.iterdir())
    code, stdout, said = bench.call(file, *out, *words)
    assert (code, stdout) == (2, ""), said
    for part in expected:
        assert part in said
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_folders_of_others_are_refused(bench, tmp_path):
    bench.out.mkdir()
    (bench.out / "notes.txt").write_text("mine")
    code, _, said = bench.call(bench.file(), f"out={bench.out}")
    assert code == 2
    assert "no search of bertune" in said
    (bench.out / "notes.txt").unlink()
    bertune.tune(bench.settings(out=str(bench.out)), trials=1)
    code, _, said = bench.call(bench.file(), f"out={bench.out}")
    assert code == 2
    assert "go on with bertune tune" in said
    code, _, said = bench.call(tmp_path, "--resume")
    assert code == 2
    assert "holds no tune.yaml" in said


def test_train_says_that_the_search_is_not_its_own(bench, capfd):
    bertune.train(str(bench.file()), [f"out={bench.out}", "train.max_steps=1"])
    assert "search and tune: for bertune tune; here the other settings count" in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no kill -9")
def test_killed_at_random_and_resumed(bench):
    """Wherever the process dies, the search has all its trials in the end, and one model."""
    words = [sys.executable, "-m", "bertune", "tune", "-q"]
    first = [*words, str(bench.file()), f"out={bench.out}"]
    again = [*words, str(bench.out), "--resume"]
    for seconds in (5, 7, 6):
        command = again if (bench.out / "tune.yaml").is_file() else first
        process = subprocess.Popen(command)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
    command = again if (bench.out / "tune.yaml").is_file() else first
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads((bench.out / "results.json").read_text(encoding="utf-8"))
    trials = [json.loads(line) for line in (bench.out / "trials.jsonl").read_text().splitlines()]
    assert sum(t["state"] in {"complete", "pruned"} or "twice" in t["reason"] for t in trials) == 4
    assert results["refit"]["dev"]["values"].keys() >= {"accuracy"}
    assert not list(Path(bench.out).glob("*.part"))
