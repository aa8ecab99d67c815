"""What pruning saves, and whether memory grows with trials: a search without pruning, and with each pruner.

    BERTUNE_DATA=DATA python benchmarks/tune_cost.py --trials 20 --limit 1000 --pruners none median hyperband

The same seed and space for all. Seconds are those of the processor. Prints a line a trial with the memory of
the process, then a summary a search.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

DATA = os.environ.get("BERTUNE_DATA", "data")
SEARCH = {
    "train.learning_rate": {"log_uniform": [1e-5, 1e-3]},
    "train.epochs": {"int": [2, 5]},
    "train.batch_size": {"choice": [8, 16, 32]},
    "train.head_learning_rate": {"log_uniform": [1e-4, 1e-2]},
}


def search(pruner: str, trials: int, limit: int, seed: int) -> None:
    import psutil

    from bertune.config.tuning import TuneConfig
    from bertune.selection.space import read_space
    from bertune.selection.study import OptunaStudy
    from bertune.selection.trial_run import TrialRunner
    from bertune.selection.trials import Study
    from bertune.tasks import load_task

    task = load_task("classify")
    raw = {
        "task": "classify",
        "model": "minilm",
        "seed": seed,
        "data": {"train": f"{DATA}/glue/SST-2/train.tsv", "dev": f"{DATA}/glue/SST-2/dev.tsv"},
    }
    tune = TuneConfig(trials=trials, pruner=pruner, limit=limit, startup_trials=4)
    runner = TrialRunner(raw, task, tune, lambda _: None)
    process, memory, done = psutil.Process(), [], 0
    began = time.process_time()

    def on_trial(study: Study) -> None:
        nonlocal done
        ended = [t for t in study.trials if t.state != "running"]
        if len(ended) > done:
            done = len(ended)
            gc.collect()
            memory.append(process.memory_info().rss / 1e6)
            last = ended[-1]
            print(f"{pruner} trial {last.number} {last.state} {last.score} {memory[-1]:.0f} MB", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        study = OptunaStudy(Path(folder), runner, read_space(SEARCH, raw, task.Options), on_trial).run()
    seconds = time.process_time() - began
    best = study.best
    planned = 0
    for trial in study.trials:
        batch = trial.settings.get("train.batch_size", 32)
        planned += math.ceil(math.ceil(study.num_rows[0] / batch) * trial.settings.get("train.epochs", 3))
    print(
        f"{pruner}: {seconds:.0f} s of the processor, best {best.score if best else None}, "
        f"{study.count('pruned')} of {len(study.trials)} pruned, {sum(t.steps for t in study.trials)} steps "
        f"of {planned} that all trials would have run, "
        f"memory after trial 3 {memory[2]:.0f} MB, after the last {memory[-1]:.0f} MB",
        flush=True,
    )


def main() -> None:
    """Run one search after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pruners", nargs="+", default=["none", "median", "hyperband"])
    given = parser.parse_args()
    for pruner in given.pruners:
        search(pruner, given.trials, given.limit, given.seed)


if __name__ == "__main__":
    main()
