"""A runner whose trials are a formula, and a program that runs a study with it in a process of its own."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from bertune.commands.train import prepare
from bertune.config.tuning import TuneConfig
from bertune.selection.space import read_space
from bertune.selection.study import OptunaStudy
from bertune.selection.trial_run import TrialResult
from bertune.tasks import load_task

RAW = {"task": "classify", "data": {"train": "rows.csv"}}
SEARCH = {
    "train.learning_rate": {"log_uniform": [1e-6, 1e-2]},
    "options.loss": {"choice": ["cross_entropy", "focal"]},
    "options.focal_gamma": {"uniform": [0.5, 3.0], "when": {"options.loss": "focal"}},
}


def make_space(search=SEARCH):
    return read_space(search, RAW, load_task("classify").Options)


class FakeRunner:
    """Scores a trial by its learning rate: the best is 1e-4."""

    metric = "accuracy"

    def __init__(self, *, higher_is_better=True, during=lambda number: None, **tune):
        self.tune = TuneConfig(**{"trials": 8, "startup_trials": 3, "evaluations": 4, **tune})
        self.run, _ = prepare({**RAW, "train": {"learning_rate": 5e-5}})
        self.held_out = SimpleNamespace(num_rows=(80, 20))
        self.higher_is_better, self.during, self.num_run = higher_is_better, during, 0
        self.seen = []

    def final_score(self, settings):
        from math import log10

        quality = 1 - abs(log10(settings.get("train.learning_rate", 5e-5)) + 4) / 4
        return quality if self.higher_is_better else 1 - quality

    def run_trial(self, settings, report, deadline=None):
        result = TrialResult("complete")
        self.seen.append(settings)
        self.num_run += 1
        self.during(self.num_run)
        final = self.final_score(settings)
        for number in range(1, self.tune.evaluations + 1):
            score = final * number / self.tune.evaluations
            result.evaluations.append(score)
            result.steps = number * 10
            if report(number, score) and number < self.tune.evaluations:
                result.state, result.reason = "pruned", f"at {number}"
                return result
        result.score, result.values = final, {"accuracy": final, "mcc": 0.0}
        return result


def main() -> None:
    """Run a study: FOLDER, TRIALS, the number of the trial in which to die, and seconds a trial."""
    folder, trials, dies_in = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    seconds = float(sys.argv[4])

    def during(number: int) -> None:
        time.sleep(seconds)
        if number == dies_in:
            os.kill(os.getpid(), signal.SIGKILL)

    runner = FakeRunner(trials=trials, during=during)
    OptunaStudy(folder, runner, make_space(), lambda _: None).run()
    print(runner.num_run)


if __name__ == "__main__":
    main()
