"""What an encoder from nothing has learnt: its perplexity beside the unigram model's, and gaps it fills.

    BERTUNE_DATA=DATA python benchmarks/pretrain_new.py OUT [SETTING=VALUE ...]

Trains 2 layers of 256 on raw-en, unless OUT holds the finished run, with the tokenizer that the run trains.
Then the masked tokens of the dev rows, the same that the run's own score counts, are scored by how often each
token occurs in the training rows, with add-one smoothing: what a model can know that does not read the text.
Last, the five most probable words for the gaps of ten sentences.
"""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np

import bertune
from bertune.artifact.read import read_artifact
from bertune.commands.train import resolve_run
from bertune.console import Console
from bertune.data.batching import length_sorted_batches
from bertune.tasks.base.datasets import encode_datasets, read_datasets

DATA = Path(os.environ.get("BERTUNE_DATA", "data"))
SETTINGS: dict[str, Any] = {
    "task": "pretrain",
    "model": "new",
    "data": {
        "train": str(DATA / "raw-en" / "sentence-collector.en.txt"),
        "format": "lines",
        "max_length": 64,
    },
    "options": {"new": {"layers": 2, "hidden_size": 256}},
    "train": {"epochs": 12},
}
SENTENCES = (
    "He opened the [MASK] and went into the house.",
    "She did not [MASK] what to say.",
    "They waited for a long [MASK].",
    "The sun was [MASK] in the sky.",
    "I have never [MASK] him before.",
    "He looked at [MASK] and smiled.",
    "It was one of the [MASK] days of my life.",
    "Where are you [MASK]?",
    "The boy sat down on the [MASK].",
    "A man and a [MASK] walked down the street.",
)


def unigram_scores(folder: Path) -> dict[str, float]:
    """Perplexity and accuracy of the frequencies of training tokens on the masked tokens of the dev rows."""
    run, task = resolve_run(folder / "run.yaml", [], lambda _: None)
    artifact = read_artifact(folder)
    quiet = Console(quiet=True)
    splits = read_datasets(run, task, quiet)
    tokenizer = artifact.tokenizer
    task.see_tokenizer(tokenizer)
    datasets = encode_datasets(run, task, tokenizer, splits, quiet)
    special = sorted(tokenizer.special_ids())
    counts = np.zeros(tokenizer.max_token_id + 1)
    train = datasets["train"]
    for rows in length_sorted_batches(train.lengths, 1 << 16):
        ids = train.get_batch(rows, task.collate_target).ragged.input_ids.numpy()
        counts += np.bincount(ids, minlength=len(counts))
    smoothed = counts + 1
    smoothed[special] = 0
    log_probabilities = np.log(np.maximum(smoothed, 1e-300) / smoothed.sum())
    hidden = []
    dev = datasets["dev"]
    for rows in length_sorted_batches(dev.lengths, 1 << 13):
        target = task.prepare(dev.get_batch(rows, task.collate_target), None).target
        hidden.append(target[1].numpy())
    ids = np.concatenate(hidden)
    return {
        "masked tokens": len(ids),
        "perplexity": math.exp(-log_probabilities[ids].mean()),
        "accuracy": float((ids == log_probabilities.argmax()).mean()),
    }


def main() -> None:
    """Train, compare, and fill."""
    folder = Path(sys.argv[1])
    if not (folder / "scores.json").is_file():
        bertune.train({**SETTINGS, "out": str(folder)}, sys.argv[2:], resume=folder.is_dir())
    scores = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    unigram, model = unigram_scores(folder), scores["dev"]["values"]
    print(json.dumps({"unigram": unigram, "model": model, "run": scores["run"]}, indent=2))
    factor = unigram["perplexity"] / model["perplexity"]
    print(f"perplexity: {factor:.1f} times lower than the unigram model's")
    filler = bertune.load(folder)
    if not hasattr(filler, "fill"):
        return
    for sentence in SENTENCES:
        print(sentence, *(token["token_str"] for token in filler.fill(sentence, k=5)), sep="  ")


if __name__ == "__main__":
    main()
