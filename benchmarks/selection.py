"""What a search and an ensemble bring: dev scores, seconds, calibration error; several seeds.

    BERTUNE_DATA=DATA BERTUNE_M3E=FOLDER python benchmarks/selection.py sst2 --seeds 1 2 3 --out s.jsonl

For each seed: the default settings trained on all rows, with 3-fold cross-validation beside it, whose models
are the ensemble and whose out-of-fold rows calibrate both; and `bertune tune`, whose winner is trained on all
rows. Dev rows choose nothing in any of them: each model is that of its last step.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

DATA, M3E = os.environ.get("BERTUNE_DATA", "data"), os.environ.get("BERTUNE_M3E", "m3e-small")
SEARCH = {
    "train.learning_rate": {"log_uniform": [1e-5, 5e-4]},
    "train.epochs": {"int": [2, 5]},
    "train.batch_size": {"choice": [8, 16, 32]},
    "train.head_learning_rate": {"log_uniform": [1e-4, 1e-2]},
}
SETS: dict[str, dict[str, Any]] = {
    "cola": {
        "model": "minilm",
        "data": {
            "train": f"{DATA}/glue/CoLA/train.tsv",
            "dev": f"{DATA}/glue/CoLA/dev.tsv",
            "columns": ["_", "label", "_", "text"],
            "limit": 1000,
        },
        "options": {"metric": "mcc"},
    },
    "sst2": {
        "model": "minilm",
        "data": {
            "train": f"{DATA}/glue/SST-2/train.tsv",
            "dev": f"{DATA}/glue/SST-2/dev.tsv",
            "limit": 1000,
        },
    },
    "tnews": {
        "model": M3E,
        "data": {
            "train": f"{DATA}/tnews/train.tsv",
            "dev": f"{DATA}/tnews/dev.tsv",
            "columns": ["text", "label"],
            "limit": 1000,
        },
    },
}


def calibration_errors(folder: Path, file: str) -> dict[str, float]:
    """Return the expected calibration error on a file, with what the folder has learnt and without."""
    import numpy as np

    import bertune
    from bertune.metrics.calibration import calibration_error

    errors = {}
    for name in ("after", "before"):
        pipeline = bertune.load(folder)
        rows = list(bertune.predict(folder, file).results) if name == "after" else errors.pop("rows")
        predictions = [prediction for _, prediction in rows]
        if name == "before":
            pipeline.task.reset_calibration()
            texts = [(r.fields["text"], r.fields["text_b"]) if "text_b" in r.fields else r.fields["text"]
                     for r, _ in rows]  # fmt: skip
            predictions = pipeline.predict(texts)
        else:
            errors["rows"] = rows
        gold = [str(row.fields["label"]) for row, _ in rows]
        right = np.array([p.value == g for p, g in zip(predictions, gold, strict=True)])
        errors[name] = calibration_error(np.array([p.confidence for p in predictions]), right)
    return errors


def measure(name: str, seed: int, trials: int) -> dict[str, Any]:
    """Run everything for one seed."""
    import bertune

    settings = {
        "task": "classify",
        "seed": seed,
        "train": {"epochs": 3, "eval_every": "end"},
        **SETS[name],
    }
    dev = settings["data"]["dev"]
    record: dict[str, Any] = {"set": name, "seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        calibrated = {**settings, "options": {**settings.get("options", {}), "calibration": "auto"}}
        result = bertune.crossval(calibrated, folds=3, refit=True, ensemble=True, out=f"{folder}/cv")
        record["crossval_seconds"] = time.perf_counter() - began
        summary = json.loads((Path(folder) / "cv/model/scores.json").read_text(encoding="utf-8"))
        record["default_seconds"] = summary["run"]["train_seconds"]
        for model, key in (("model", "default"), ("ensemble", "ensemble")):
            scores = result.models[model]["dev"]
            record[key] = scores.main_value
            record[f"{key}_interval"] = scores.intervals[scores.main_metric]
            record[f"{key}_ece"] = calibration_errors(Path(folder) / "cv" / model, dev)
        began = time.perf_counter()
        search = {**settings, "search": SEARCH, "tune": {"limit": 0.5, "startup_trials": 4}}
        tuned = bertune.tune({**search, "out": f"{folder}/tune"}, trials=trials)
        record["tune_seconds"] = time.perf_counter() - began
        scores = tuned.scores["dev"]
        record["tuned"], record["tuned_interval"] = scores.main_value, scores.intervals[scores.main_metric]
        record["settings"], record["search_score"] = tuned.best.settings, tuned.best.score
        record["naive"] = tuned.study.optimistic_score
        record["pruned"] = tuned.study.count("pruned")
    return record


def main() -> None:
    """Measure each seed and print a line for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("set", choices=SETS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    records = []
    for seed in given.seeds:
        records.append(measure(given.set, seed, given.trials))
        line = json.dumps(records[-1])
        print(line, flush=True)
        if given.out:
            with given.out.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
    for key in ("default", "tuned", "ensemble"):
        values = [record[key] for record in records]
        print(f"{key}: mean {statistics.mean(values):.4f} of {values}")


if __name__ == "__main__":
    main()
