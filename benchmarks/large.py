"""Data larger than memory: speed of reading and tokenizing, time to the first step, peak memory at two sizes.

    python benchmarks/large.py [--rows 65000 650000] [--folder FOLDER] [--max-length 128]

Reviews are made, not stored: their lengths follow those of Yelp's reviews (a lognormal distribution of
blank-separated words; mean and standard deviation of the logarithm below were measured on 7,000 of them),
their words are drawn by Zipf's law from the whole words of the tokenizer and 150,000 made of two. The model
is a tiny BERT with random weights and the vocabulary of MiniLM, so that nearly all the time is that of the
data. Every figure is from a process of its own, its peak resident memory included; that of the processes that
tokenise comes on top and is told apart.

train   cold cache, then warm: seconds to the first step, peak memory of so many steps over rows shuffled over
        the whole set, and of an evaluation of a tenth of them.
predict seconds and peak memory.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

LOG_WORDS = 4.30, 0.83
"""Mean and standard deviation of the logarithm of a review's words."""
MOST_WORDS = 1000
STEPS = 200


def make_model(folder: Path) -> Path:
    """Write a tiny BERT with MiniLM's tokenizer."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    from bertune.encoders.pretrained import locate_model

    torch.manual_seed(0)
    config = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    BertModel(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(locate_model("minilm")).save_pretrained(folder)
    return folder


def words_of(model: Path, random: np.random.Generator) -> tuple[list[str], np.ndarray]:
    """Return words, the frequent ones first, and the chance of each and all before it."""
    vocabulary = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    whole = [
        w
        for w, _ in sorted(vocabulary.items(), key=lambda pair: pair[1])
        if re.fullmatch(r"[a-z]{1,12}", w) and vocabulary[w] > 1990
    ]
    joined = [whole[a] + whole[b] for a, b in random.integers(0, len(whole), (150_000, 2))]
    chance = 1 / (np.arange(len(whole) + len(joined)) + 11) ** 1.35
    return [*whole, *joined], np.cumsum(chance) / chance.sum()


def make_reviews(path: Path, rows: int, model: Path, seed: int = 1) -> None:
    """Write a csv of reviews with 1 to 5 stars."""
    random = np.random.default_rng(seed)
    words, chances = words_of(model, random)
    forms = np.array(
        [words, [w.capitalize() for w in words], [w + "," for w in words], [w + "." for w in words]], object
    )
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["text", "label"])
        for start in range(0, rows, 1000):
            count = min(1000, rows - start)
            lengths = np.clip(np.exp(random.normal(*LOG_WORDS, count)), 1, MOST_WORDS).astype(int)
            drawn = np.searchsorted(chances, random.random(lengths.sum()))
            form = random.choice(4, lengths.sum(), p=[0.82, 0.06, 0.06, 0.06])
            text = forms[form, drawn].tolist()
            ends = np.cumsum(lengths).tolist()
            stars = random.integers(1, 6, count).tolist()
            for a, b, star in zip([0, *ends[:-1]], ends, stars, strict=True):
                writer.writerow([" ".join(text[a:b]), star])


def bertune(*words: object, cache: Path) -> dict[str, object]:
    """Run a command; return its seconds, those to its first step, its peak memory, its rates."""
    command = [sys.executable, "-c", "from bertune.cli import main; main()", *map(str, words)]
    environment = {
        **os.environ,
        "BERTUNE_CACHE": str(cache),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
    }
    began = time.perf_counter()
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment
    )
    found: dict[str, object] = {}
    for line in process.stderr:
        if line.startswith("step     1 "):
            found["first_step_s"] = round(time.perf_counter() - began, 2)
        if rate := re.search(r"(\d+) rows (read and checked|tokenised) in .*, ([\d,]+) rows/s", line):
            kind = rate[2].split()[0] + ("" if "train" in line or "read" in line else "_dev")
            found[f"{kind}_rows_per_s"] = int(rate[3].replace(",", ""))
        if line.startswith("bertune:"):
            raise SystemExit(line)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{words}: status {status}")
    # Linux counts in KiB. The peak is that of the largest process, and this one is far larger than those that
    # tokenise.
    processor = round(
        usage.ru_utime + usage.ru_stime, 1
    )  # of all its processes: on a busy machine more is to be had from this
    return {
        **found,
        "seconds": round(time.perf_counter() - began, 2),
        "processor_s": processor,
        "peak_gb": round(usage.ru_maxrss * 1024 / 1e9, 3),
    }


def measure(place: Path, model: Path, rows: int, max_length: int) -> None:
    file, cache, out = place / f"{rows}.csv", place / f"cache-{rows}", place / f"out-{rows}"
    make_reviews(file, rows, model)
    print(json.dumps({"rows": rows, "file_mb": round(file.stat().st_size / 1e6)}), flush=True)
    settings = [
        f"model={model}",
        f"data.train={file}",
        f"train.max_steps={STEPS}",
        f"data.max_length={max_length}",
        "log.every=1",
    ]
    for what in ("cold", "warm", "warm", "warm"):
        shutil.rmtree(out, ignore_errors=True)
        found = bertune("train", "classify", *settings, "data.cache=on", f"out={out}", cache=cache)
        print(json.dumps({"rows": rows, "train": what, **found}), flush=True)
    found = bertune("predict", out, file, "-o", place / "predictions.csv", cache=cache)
    print(json.dumps({"rows": rows, "predict": "csv", **found}), flush=True)
    for path in (cache, out):
        shutil.rmtree(path)
    file.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[65_000, 650_000])
    parser.add_argument(
        "--folder", help="where to work; without it a new one in the system's folder for temporary files"
    )
    parser.add_argument("--max-length", type=int, default=128)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as place:
        model = make_model(Path(place) / "model")
        for rows in asked.rows:
            measure(Path(place), model, rows, asked.max_length)


if __name__ == "__main__":
    main()
