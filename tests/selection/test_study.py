"""The search by Optuna: what is counted, what goes on, what several processes do on one study."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from tests.selection.fake_runner import FakeRunner, make_space

from bertune.errors import ConfigError, Interrupted, TrainingError
from bertune.selection.study import OptunaStudy

ROOT = Path(__file__).parents[2]


def study_of(folder, runner, space=None, on_trial=lambda _: None):
    return OptunaStudy(folder, runner, space or make_space(), on_trial)


def start(folder, trials, dies_in=0, seconds=0.0, stdout=subprocess.DEVNULL):
    command = [sys.executable, "-m", "tests.selection.fake_runner", folder, trials, dies_in, seconds]
    return subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=stdout)


def states(study):
    return [trial.state for trial in study.trials]


def test_the_first_trial_is_the_run_as_it_is(tmp_path):
    study = study_of(tmp_path, FakeRunner()).run()
    assert study.trials[0].settings == {"train.learning_rate": 5e-05, "options.loss": "cross_entropy"}
    assert len(study.trials) == 8
    assert study.num_rows == (80, 20)


def test_settings_outside_of_the_space_are_tried_as_they_are(tmp_path):
    runner = FakeRunner()
    study = study_of(tmp_path, runner, make_space({"train.learning_rate": {"uniform": [0.1, 0.2]}})).run()
    assert study.trials[0].settings == runner.seen[0] == {}
    assert all(0.1 <= t.settings["train.learning_rate"] <= 0.2 for t in study.trials[1:])


@pytest.mark.parametrize("higher_is_better", [True, False])
@pytest.mark.parametrize("pruner", ["median", "hyperband", "none"])
def test_it_finds_the_best_and_prunes_what_is_worse(higher_is_better, pruner, tmp_path):
    runner = FakeRunner(higher_is_better=higher_is_better, pruner=pruner, trials=25)
    study = study_of(tmp_path, runner).run()
    assert (study.metric, study.higher_is_better) == ("accuracy", higher_is_better)
    best = study.best
    assert best.score == (max if higher_is_better else min)(t.score for t in study.complete)
    assert best.score == runner.final_score(best.settings)
    pruned = [t for t in study.trials if t.state == "pruned"]
    assert bool(pruned) == (pruner != "none")
    for trial in study.trials:
        assert len(trial.evaluations) == 4 if trial.state == "complete" else 1 <= len(trial.evaluations) < 4
        assert (trial.score is None) == (trial.state != "complete")


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_same_seed_draws_the_same_trials(sampler, tmp_path):
    found = []
    for name in "ab":
        (tmp_path / name).mkdir()
        found.append(study_of(tmp_path / name, FakeRunner(sampler=sampler)).run())
    assert [t.settings for t in found[0].trials] == [t.settings for t in found[1].trials]
    assert len({str(t.settings) for t in found[0].trials}) == 8


def test_it_goes_on_and_more_trials_may_be_asked_for(tmp_path):
    first = study_of(tmp_path, FakeRunner(trials=3)).run()
    second = FakeRunner(trials=5)
    study = study_of(tmp_path, second).run()
    assert study.trials[:3] == first.trials
    assert second.num_run == 2
    assert len({str(t.settings) for t in study.trials}) == 5


def test_a_trial_that_fails_is_a_result(tmp_path):
    def fails(number):
        if number == 2:
            raise MemoryError

    runner = FakeRunner(during=fails)
    original = runner.run_trial

    def run_trial(*given):
        from bertune.selection.trial_run import TrialResult

        try:
            return original(*given)
        except MemoryError:
            return TrialResult("failed", reason="out of memory")

    runner.run_trial = run_trial
    study = study_of(tmp_path, runner).run()
    assert states(study)[1] == "failed"
    assert study.trials[1].reason == "out of memory"
    assert len(study.trials) == 8
    assert study.best is not None


def test_if_all_fail_the_search_ends(tmp_path):
    from bertune.selection.trial_run import TrialResult

    runner = FakeRunner()
    runner.run_trial = lambda *_: TrialResult("failed", reason="the loss is not finite")
    with pytest.raises(TrainingError, match="all of the first 3 trials failed; the last one: the"):
        study_of(tmp_path, runner).run()


def test_ctrl_c_leaves_the_trial_to_whoever_goes_on(tmp_path):
    def stops(number):
        if number == 3:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match=r"bertune tune .* --resume"):
        study_of(tmp_path, FakeRunner(during=stops)).run()
    study = study_of(tmp_path, FakeRunner()).run()
    assert [t.reason for t in study.trials if t.state == "failed"] == ["it was stopped, run again"]
    assert study.trials[3].settings == study.trials[2].settings
    assert sum(t.state in {"complete", "pruned"} for t in study.trials) == 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no kill -9")
def test_a_killed_process_loses_no_trial_and_none_is_run_for_ever(tmp_path):
    assert start(tmp_path, 6, dies_in=3).wait() == -9
    assert start(tmp_path, 6, dies_in=1).wait() == -9  # in the same trial
    study = study_of(tmp_path, FakeRunner(trials=6)).run()
    failed = [t for t in study.trials if t.state == "failed"]
    assert [t.reason for t in failed] == ["its process ended, run again", "its process ended twice"]
    assert failed[0].settings == failed[1].settings
    assert len(study.trials) == 7  # six that count
    assert sum(t.state in {"complete", "pruned"} for t in study.trials) == 5


def test_two_processes_share_a_study(tmp_path):
    both = [start(tmp_path, 12, seconds=0.05, stdout=subprocess.PIPE) for _ in "ab"]
    done = [int(process.communicate()[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum(done) == 12
    study = study_of(tmp_path, FakeRunner(trials=12)).run()
    assert [t.number for t in study.trials] == list(range(12))
    assert states(study).count("running") == 0


def test_a_living_process_is_left_alone(tmp_path):
    first = start(tmp_path, 1, seconds=600)
    try:
        while (
            not (tmp_path / "study.db").exists() or not study_of(tmp_path, FakeRunner(trials=1)).read().trials
        ):
            assert first.poll() is None
        study = study_of(tmp_path, FakeRunner(trials=1))
        assert states(study.run()) == ["running"]
        assert study.others_run()
    finally:
        first.kill()
        first.wait()
    assert not study_of(tmp_path, FakeRunner(trials=1)).others_run()


def test_time_ends_the_search(tmp_path):
    from bertune.selection.trial_run import TrialResult

    runner = FakeRunner(time=1e-9)
    runner.run_trial = lambda *_: TrialResult("complete", score=1.0)
    assert study_of(tmp_path, runner).run().trials == ()


def test_files_that_are_no_study_of_ours(tmp_path):
    (tmp_path / "study.db").write_text("no database at all, but long enough to look at" * 20)
    with pytest.raises(ConfigError, match="is no study of bertune"):
        study_of(tmp_path, FakeRunner())
    import optuna

    (tmp_path / "study.db").unlink()
    optuna.create_study(study_name="mine", storage=f"sqlite:///{tmp_path / 'study.db'}")
    with pytest.raises(ConfigError, match="holds another study, 'mine'"):
        study_of(tmp_path, FakeRunner())


def test_listeners_hear_of_each_step(tmp_path):
    heard = []
    study_of(tmp_path, FakeRunner(trials=2, pruner="none"), on_trial=heard.append).run()
    assert [len(s.trials) for s in heard] == [1] * 6 + [2] * 6
    assert [len(s.trials[-1].evaluations) for s in heard] == [0, 1, 2, 3, 4, 4] * 2


def test_the_file_is_sqlite(tmp_path):
    study_of(tmp_path, FakeRunner(trials=1)).run()
    with sqlite3.connect(tmp_path / "study.db") as connection:
        assert connection.execute("select count(*) from trials").fetchone() == (1,)
    connection.close()
