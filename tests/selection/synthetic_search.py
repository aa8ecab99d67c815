"""A search without models: a trial's score after a part of its training is that part of its setting `x`.

As a script, `synthetic_search.py OUT TRIALS`, it runs one through a local Ray and prints the trials.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from bertune.config.tuning import TuneConfig
from bertune.selection.ray_engine import RayStudy
from bertune.selection.space import Dimension, SearchSpace
from bertune.selection.trial_run import HeldOut, TrialResult

STEPS = 6
SPACE = SearchSpace(
    (
        Dimension("kind", "choice", ("good", "raises", "dies")),
        Dimension("x", "uniform", (0.0, 1.0), {"kind": ("good",)}),
    )
)


class Run:
    seed, device = 0, "cpu"

    def __init__(self, own):
        self.own = own

    def model_dump(self, mode):
        return self.own


class SyntheticRunner:
    """Stands where a TrialRunner stands."""

    def __init__(self, own=None, *, higher_is_better=True, **tune):
        self.tune = TuneConfig(engine="ray", **tune)
        self.run, self.task = Run(own or {"kind": "good", "x": 0.5}), None
        self.metric, self.higher_is_better, self.num_steps = "", True, (0, STEPS)
        self.held_out = HeldOut((np.arange(8),), (np.arange(2),))
        self.will_be_better = higher_is_better

    def run_trial(self, settings, report=lambda *_: False, deadline=None):
        if settings["kind"] == "dies":
            os._exit(1)
        if settings["kind"] == "raises":
            raise KeyError("no such key")
        result = TrialResult("complete")
        for number in range(1, STEPS + 1):
            self.metric, self.higher_is_better, self.num_steps = "acc", self.will_be_better, (number, STEPS)
            score = settings["x"] * number / STEPS
            result.evaluations.append(score)
            result.steps = number
            if report(number, score) and number < STEPS:
                result.state = "pruned"
                return result
            time.sleep(0.01)
        result.score, result.values = score, {"acc": score}
        return result


if __name__ == "__main__":
    runner = SyntheticRunner(trials=int(sys.argv[2]), ray={"cpus_per_trial": 1})
    study = RayStudy(Path(sys.argv[1]), runner, SPACE, lambda _: None).run()
    print(json.dumps([trial.to_json() for trial in study.trials]))
