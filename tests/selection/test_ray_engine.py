"""The engine of Ray Tune: its parts without Ray, and searches through a Ray of this machine (slow)."""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import pytest
import torch
import yaml
from tests.selection.synthetic_search import SPACE, STEPS, SyntheticRunner

from bertune.config.tuning import RayConfig, TuneConfig, take_sections
from bertune.errors import ConfigError, MissingExtra
from bertune.selection.ray_cluster import SESSIONS, check_address, check_ray, resources_of_trial, slots
from bertune.selection.ray_engine import RayStudy, make_scheduler, reason_of, step_of, stepped
from bertune.selection.space import Dimension, SearchSpace
from bertune.selection.trial_run import TrialResult, TrialRunner
from bertune.selection.trial_thread import SteppedTrial
from bertune.selection.trials import Study, Trial
from bertune.tasks import load_task

ROOT = Path(__file__).parents[2]
X = {"settings": {"kind": "good", "x": 0.6}, "seconds": None}

# A trial that goes on from one evaluation to the next


def test_a_stepped_trial_tells_each_evaluation_and_then_its_end():
    runner = SyntheticRunner()
    trial = stepped(runner, X, 1)
    results = [step_of(runner, trial, number, 0.0) for number in range(1, STEPS + 1)]
    assert [r["evaluation"] for r in results] == [1, 2, 3, 4, 5, 6]
    assert [r["score"] for r in results] == [0.6 * n / STEPS for n in range(1, STEPS + 1)]
    assert [r.get("done", False) for r in results] == [False] * 5 + [True]  # the last one comes with the end
    assert results[-1]["end"].state == "complete"
    assert results[-1]["end"].evaluations == [r["score"] for r in results]
    trial.stop()  # nothing is left to stop


def test_less_is_better_is_told_as_its_negative():
    runner = SyntheticRunner(higher_is_better=False)
    trial = stepped(runner, X, 1)
    assert step_of(runner, trial, 1, 0.0)["score"] == -0.6 / STEPS
    trial.stop()


def test_a_trial_that_is_stopped_frees_what_it_holds():
    freed = threading.Event()

    class Model:
        def __del__(self):
            freed.set()

    def run(report):
        model = Model()
        report(1, 0.5)
        return TrialResult("complete", reason=str(model))

    trial = SteppedTrial(run, 1)
    assert trial.next() == 0.5
    assert not freed.is_set()
    trial.stop()
    assert freed.is_set()
    assert "trial" not in [thread.name for thread in threading.enumerate()]


def test_what_a_trial_raises_is_raised_where_it_is_asked():
    trial = stepped(SyntheticRunner(), {"settings": {"kind": "raises"}, "seconds": None}, 1)
    with pytest.raises(KeyError, match="no such key"):
        trial.next()


def test_threads_are_those_of_the_trial_alone():
    seen = []

    def run(report):
        seen.append(torch.get_num_threads())
        return TrialResult("complete")

    before = torch.get_num_threads()
    SteppedTrial(run, 3).next()
    assert seen == [3]
    assert torch.get_num_threads() == before


# The study, as workers fill it

GOOD = SearchSpace(
    (
        Dimension("kind", "choice", ("good", "fine")),
        Dimension("x", "uniform", (0.0, 1.0), {"kind": ("good",)}),
    )
)


def open_study(folder, space=SPACE, seen=None, **runner):
    folder.mkdir(exist_ok=True)
    return RayStudy(folder, SyntheticRunner(**runner), space, (seen if seen is not None else []).append)


def drive(study, name):
    """Do what Ray does with a trial that is not stopped."""
    config = study.begin(name)
    runner = SyntheticRunner(higher_is_better=study._runner.will_be_better)
    trial = stepped(runner, config, 1)
    for number in range(1, STEPS + 1):
        result = step_of(runner, trial, number, 0.0)
        (study.end if result.get("done") else study.report)(name, result)


def test_trial_0_has_the_settings_of_the_run(tmp_path):
    study = open_study(tmp_path, own={"kind": "good", "x": 0.123456789})
    assert study.begin("a") == {"number": 0, "settings": {"kind": "good", "x": 0.123456789}, "seconds": None}


def test_settings_that_do_not_count_are_not_drawn(tmp_path):
    study = open_study(tmp_path, GOOD, trials=20)
    drawn = [study.begin(str(number))["settings"] for number in range(20)]
    assert {frozenset(settings) for settings in drawn} == {frozenset({"kind"}), frozenset({"kind", "x"})}
    assert all(("x" in settings) == (settings["kind"] == "good") for settings in drawn)
    assert study.begin("one too many") is None


def test_a_study_is_what_its_trials_came_to(tmp_path):
    seen: list[Study] = []
    study = open_study(tmp_path, seen=seen, trials=3)
    drive(study, "a")
    study.begin("b")
    study.fail("b", "its worker has ended")
    config = study.begin("c")
    known = {"metric": "acc", "higher_is_better": True}
    study.report("c", {**known, "score": 0.1, "evaluation": 1})
    study.end("c", {**known, "score": 0.2, "evaluation": 2, "seconds": 1.5, "num_steps": (2, 6)})
    complete, failed, pruned = study.read().trials
    assert (complete.state, complete.score, len(complete.evaluations)) == ("complete", 0.5, STEPS)
    assert (failed.state, failed.reason) == ("failed", "its worker has ended")
    assert (pruned.state, pruned.evaluations, pruned.seconds, pruned.steps) == ("pruned", (0.1, 0.2), 1.5, 2)
    assert pruned.reason == "worse than others at step 2 of 6"
    assert pruned.settings == config["settings"]
    assert study.begin("d") is None
    assert seen[-1] == study.read()


def test_less_is_better_is_a_study_of_the_scores_themselves(tmp_path):
    study = open_study(tmp_path, trials=1, higher_is_better=False)
    drive(study, "a")
    (only,) = study.read().trials
    assert (only.score, only.evaluations[0]) == (0.5, 0.5 / STEPS)
    assert not study.read().higher_is_better


def test_a_study_goes_on_after_a_driver_that_is_gone(tmp_path):
    study = open_study(tmp_path, trials=2)
    drive(study, "a")
    lost = study.begin("b")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    owner = {"host": socket.gethostname(), "pid": gone.pid, "began": 0.0}
    study._begun["b"].set_user_attr("owner", owner)
    study = open_study(tmp_path, trials=2)
    assert study.begin("c")["settings"] == lost["settings"]
    assert study.begin("d") is None


def test_the_search_ends_when_all_trials_fail(tmp_path):
    study = open_study(tmp_path, trials=10)
    for name in "abc":
        study.begin(name)
        study.fail(name, "bad")
    assert study.begin("d") is None


def test_no_trial_begins_when_the_time_is_over(tmp_path):
    study = open_study(tmp_path, trials=10)
    study._deadline = time.monotonic() + 100
    assert 0 < study.begin("a")["seconds"] <= 100
    study._deadline = time.monotonic()
    assert study.begin("b") is None


# ASHA


class RayTrial:
    def __init__(self, number):
        self.trial_id, self.config = str(number), {"number": number}


def study_of(trials=()):
    return Study(tuple(trials), "acc", True, (8, 2), 20)


def run_through(scheduler, curves):
    """The evaluations after which ASHA stops trials, one after the other; None where it stops one nowhere."""
    scheduler.set_search_properties("score", "max")
    stops = {}
    for number, curve in curves.items():
        trial = RayTrial(number)
        scheduler.on_trial_add(None, trial)
        stops[number] = None
        for at, score in enumerate(curve[:-1], 1):
            if scheduler.on_trial_result(None, trial, {"evaluation": at, "score": score}) == "STOP":
                stops[number] = at
                break
    return stops


CURVES = {number: [level * n / STEPS for n in range(1, 7)] for number, level in enumerate((5, 6, 4, 9, 1, 7))}


def test_asha_stops_what_is_below_the_median_of_those_before():
    stops = run_through(make_scheduler(TuneConfig(), study_of()), CURVES)
    assert stops == {0: None, 1: None, 2: 1, 3: None, 4: 1, 5: None}


def test_asha_never_stops_trial_0():
    curves = {**{number: CURVES[number] for number in (1, 3, 5)}, 0: [0.0] * 6}
    assert run_through(make_scheduler(TuneConfig(), study_of()), curves)[0] is None


def test_asha_knows_the_trials_before():
    whole = run_through(make_scheduler(TuneConfig(), study_of()), CURVES)
    before = []
    for number in (0, 1, 2):
        state, end = ("pruned", whole[number]) if whole[number] else ("complete", STEPS)
        before.append(Trial(number, {}, state, evaluations=tuple(CURVES[number][:end])))
    later = {number: CURVES[number] for number in (3, 4, 5)}
    assert run_through(make_scheduler(TuneConfig(), study_of(before)), later) == {n: whole[n] for n in later}


@pytest.mark.parametrize("tune", [{"pruner": "none"}, {"evaluations": 1}])
def test_nothing_is_pruned_where_it_was_not_asked_for(tune):
    assert type(make_scheduler(TuneConfig(**tune), study_of())).__name__ == "FIFOScheduler"


@pytest.mark.parametrize("evaluations", range(2, 20))
def test_asha_does_not_decide_at_the_last_evaluation(evaluations):
    scheduler = make_scheduler(TuneConfig(evaluations=evaluations), study_of())
    assert max(milestone for milestone, _ in scheduler._brackets[0]._rungs) < evaluations


# What is refused


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"bertune\[ray\]"):
        check_ray(RayConfig(), "cpu")


@pytest.mark.parametrize("address", ["ray://127.0.0.1:10001", "nonsense", ":6379", "host:port", "http://a:1"])
def test_what_is_no_address(address):
    with pytest.raises(ConfigError, match=r"tune\.ray\.address: .* is no address; write auto"):
        check_address(address)


def test_an_address_where_nothing_answers():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(ConfigError, match=f"tune.ray.address: nothing answers at {address}"):
            check_ray(RayConfig(address=address), "cpu")


MACHINES = [{"CPU": 4.0}, {"CPU": 16.0, "GPU": 2.0}]


def test_more_than_a_machine_has_is_refused_all_at_once():
    config = RayConfig(cpus_per_trial=17, gpus_per_trial=2.5)
    with pytest.raises(ConfigError) as error:
        resources_of_trial(MACHINES, config, "auto")
    assert str(error.value).splitlines() == [
        "tune.ray.cpus_per_trial: 17 is more than a machine has (16); lower it",
        "tune.ray.gpus_per_trial: 2.5 is more than a machine has (2); lower it",
    ]
    with pytest.raises(ConfigError, match=r"tune\.ray\.cpus_per_trial: 100000 is more"):
        check_ray(RayConfig(cpus_per_trial=100_000), "cpu")


@pytest.mark.parametrize(
    ("config", "device", "resources", "trials"),
    [
        ({}, "auto", {"cpu": 4, "gpu": 1.0}, 2),
        ({}, "cpu", {"cpu": 4}, 5),
        ({"gpus_per_trial": 0.5, "cpus_per_trial": 2}, "auto", {"cpu": 2, "gpu": 0.5}, 4),
        ({"cpus_per_trial": 16}, "cpu", {"cpu": 16}, 1),
        ({"concurrent": 3}, "cpu", {"cpu": 4}, 3),
    ],
)
def test_how_many_trials_fit(config, device, resources, trials):
    config = RayConfig(**config)
    assert resources_of_trial(MACHINES, config, device) == resources
    assert slots(MACHINES, config, resources) == trials


@pytest.mark.parametrize(
    ("ray", "message"),
    [
        ({"cpus_per_trial": 0}, "tune.ray.cpus_per_trial"),
        ({"cpus_per_trial": 1.5}, "tune.ray.cpus_per_trial"),
        ({"gpus_per_trial": -1}, "tune.ray.gpus_per_trial"),
        ({"concurrent": 0}, "tune.ray.concurrent"),
        ({"adress": "auto"}, "adress.*address"),
    ],
)
def test_settings_that_are_wrong(ray, message):
    with pytest.raises(ConfigError, match=message):
        take_sections({"tune": {"ray": ray}})


def test_reasons_are_one_line():
    error = RuntimeError("trace\nmore")
    assert reason_of(error) == "its worker has ended: trace"
    error.cause = ValueError("first\nsecond")
    assert reason_of(error) == "ValueError: first"
    assert reason_of(None) == "its worker has failed"


# Rows travel


def test_a_runner_that_has_travelled_scores_the_same(tiny, write):
    rows = [{"text": f"the {n} is {w}", "label": w} for w in ("good", "bad") for n in "abcdefghij"]
    file = write("rows.jsonl", rows)
    raw = {
        "task": "classify",
        "model": str(tiny),
        "data": {"train": file, "dev": file},
        "train": {"epochs": 2, "batch_size": 4, "precision": "fp32"},
    }
    runner = TrialRunner(raw, load_task("classify"), TuneConfig(), lambda _: None)
    here = runner.run_trial({"train.learning_rate": 1e-3})
    sent = pickle.dumps(runner)
    Path(file).unlink()  # no file is read again
    there = pickle.loads(sent)
    assert (list(there.splits.train), list(there.splits.dev)) == ([], [])
    result = there.run_trial({"train.learning_rate": 1e-3})
    assert (result.state, result.score, result.evaluations) == ("complete", here.score, here.evaluations)
    assert runner.num_steps == there.num_steps == (8, 8)


# The cluster file


def test_the_cluster_file_is_one_of_ray():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        util = pytest.importorskip("ray.autoscaler._private.util")
        cluster = yaml.safe_load((ROOT / "examples" / "cluster" / "ray.yaml").read_text(encoding="utf-8"))
        prepared = util.prepare_config(cluster)
        util.validate_config(prepared)
        with pytest.raises(Exception, match="no_such_thing"):
            util.validate_config({**prepared, "no_such_thing": 1})


# Through Ray


def start(*words):
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    command = [sys.executable, *map(str, words)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)


def sessions_of(process):
    return list(Path(tempfile.gettempdir()).glob(f"{SESSIONS}{process.pid}-*"))


@pytest.mark.slow
def test_a_search_prunes_and_survives_workers_that_fail(tmp_path):
    process = start(Path(__file__).with_name("synthetic_search.py"), tmp_path, 16)
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    trials = json.loads(out)  # nothing else is on standard output
    assert [trial["number"] for trial in trials] == list(range(16))
    good, raises, dies = (
        [t for t in trials if t["settings"]["kind"] == kind] for kind in ("good", "raises", "dies")
    )
    assert {(t["state"], t["reason"]) for t in raises} == {("failed", "KeyError: 'no such key'")}
    assert {(t["state"], t["reason"].partition(":")[0]) for t in dies} == {("failed", "its worker has ended")}
    assert {t["state"] for t in good} == {"complete", "pruned"}
    assert all(len(t["evaluations"]) in {1, 2, 4} for t in good if t["state"] == "pruned")
    assert all(t["score"] == pytest.approx(t["settings"]["x"]) for t in good if t["state"] == "complete")
    assert err == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["study.db"]
    assert sessions_of(process) == []


@pytest.mark.slow
def test_a_search_that_was_killed_goes_on(tiny, write, tmp_path):
    rows = [{"text": f"the {n} is {w}", "label": w} for w in ("good", "bad") for n in "abcdefghijklmnopqrst"]
    file, out = write("rows.jsonl", rows), tmp_path / "out"
    settings = [f"model={tiny}", f"data.train={file}", f"data.dev={file}", f"out={out}", "tune.engine=ray"]
    more = ["train.max_steps=30", "train.precision=fp32", "tune.ray.cpus_per_trial=1", "device=cpu"]
    space = ["search={train.learning_rate: {log_uniform: [1e-4, 1e-2]}}", "tune.trials=4"]
    killed = start("-m", "bertune", "tune", "classify", *settings, *more, *space)
    line = killed.stderr.readline()
    while line and not line.startswith("trial "):  # one has ended
        line = killed.stderr.readline()
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert line
    process = start("-m", "bertune", "tune", out, "--resume")
    printed, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    assert printed == f"{out}\n"
    assert (out / "model" / "scores.json").is_file()
    trials = [json.loads(line) for line in (out / "trials.jsonl").read_text().splitlines()]
    assert len([trial for trial in trials if "run again" not in trial["reason"]]) == 4
    assert {trial["state"] for trial in trials} <= {"complete", "pruned", "failed"}
    assert "complete" in {trial["state"] for trial in trials}
    assert sessions_of(killed) == sessions_of(process) == []
    assert not (out / "ray").exists()
