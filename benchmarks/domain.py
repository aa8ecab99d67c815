"""What pretraining on a task's own texts is worth: dev scores of a few labelled rows, before and after.

    export BERTUNE_DATA=DATA BERTUNE_M3E=M3E
    python benchmarks/domain.py yelp --labelled 500 --epochs 3 --seeds 1 2 3 --threads 1 --out domain.jsonl
    python benchmarks/domain.py tnews --labelled 1000 --epochs 2 --threads 1
    python benchmarks/domain.py weibo --labelled 1350 --epochs 8 --threads 1

For every seed: the encoder is fine-tuned on `--labelled` rows (before); it is pretrained on the texts of all
training rows, without their labels, for `--epochs` epochs; the result is fine-tuned on the same rows, at the
same settings (after). The settings are the defaults, except those in `FINE_TUNING` and `OF_TASK`: vectors of
labels are means, since a pretrained encoder has no pooler any more. Texts that are dev rows too are left out
of pretraining, and dev rows choose no checkpoint. Printed: scores, and mean and 95 % interval of the
difference. Further arguments are settings of the pretraining, such as `options.masking=whole_words`.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

DATA = Path(os.environ.get("BERTUNE_DATA", "data"))
M3E = os.environ.get("BERTUNE_M3E", "")
FINE_TUNING = ["data.max_length=128", "train.eval_every=end", "train.checkpoint_every=never"]
OF_TASK = {"classify": ["options.pooling=mean"], "tag": []}
T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
Result = dict[str, Any]


def tab_texts(name: str) -> list[str]:
    lines = (DATA / name).read_text(encoding="utf-8").splitlines()
    return [line.split("\t")[0].strip() for line in lines]


def sentences(name: str) -> list[str]:
    lines = (DATA / name).read_text(encoding="utf-8").splitlines()
    return ["".join(json.loads(line)["text"]) for line in lines]


def yelp_texts(name: str) -> list[str]:
    with (DATA / name).open(encoding="utf-8", newline="") as file:
        return [" ".join(row["text"].split()) for row in csv.DictReader(file)]


@dataclass(frozen=True)
class Domain:
    """A task, and how its texts are read."""

    model: str
    train: str
    dev: str
    columns: str = "[text,label]"
    read: Callable[[str], list[str]] = tab_texts
    task: str = "classify"

    def settings(self) -> list[str]:
        own = [f"data.columns={self.columns}"] if self.columns else []
        return [f"data.train={DATA / self.train}", f"data.dev={DATA / self.dev}", *own]

    def texts(self) -> list[str]:
        """Return the texts of the training rows that are no dev rows."""
        dev = set(self.read(self.dev))
        return [text for text in self.read(self.train) if text and text not in dev]


DOMAINS = {
    "yelp": Domain("minilm", "yelp/dev.csv", "yelp/test.csv", "{text: text, label: label2}", yelp_texts),
    "agnews": Domain("minilm", "agnews/train_10k.tsv", "agnews/test.tsv"),
    "sst2": Domain("minilm", "glue/SST-2/train.tsv", "glue/SST-2/dev.tsv", ""),
    "tnews": Domain(M3E, "tnews/train.tsv", "tnews/dev.tsv"),
    "weibo": Domain(M3E, "ner/weibo/train.json", "ner/weibo/dev.json", "", sentences, "tag"),
    "chnsenticorp": Domain(M3E, "chnsenticorp/train.tsv", "chnsenticorp/dev.tsv"),
}
"""Yelp has no training file here: its dev.csv is the training rows, its test.csv the dev rows."""


def fine_tune(domain: Domain, model: str, labelled: int, seed: int, out: str) -> Result:
    import bertune

    settings = [*domain.settings(), *FINE_TUNING, *OF_TASK[domain.task]]
    settings += [f"data.limit={labelled}", f"model={model}", f"seed={seed}", f"out={out}"]
    scores = bertune.train(domain.task, settings, quiet=True).scores["dev"]
    return {"metric": scores.main_metric, "value": scores.main_value}


def pretrain(domain: Domain, place: str, epochs: float, seed: int, overrides: list[str]) -> Result:
    """Write the pretrained encoder to `place/pretrained`."""
    import bertune

    texts = Path(place) / "texts.txt"
    texts.write_text("\n".join(domain.texts()) + "\n", encoding="utf-8")
    began = time.perf_counter()
    settings = [
        f"data.train={texts}", f"model={domain.model}", f"train.epochs={epochs}", "data.max_length=128",
        "train.checkpoint_every=never", f"seed={seed}", f"out={place}/pretrained", *overrides,
    ]  # fmt: skip
    scores = bertune.train("pretrain", settings, quiet=True).scores["dev"]
    history = (Path(place) / "pretrained/history.jsonl").read_text(encoding="utf-8").splitlines()
    looks = [json.loads(line) for line in history]
    dev = [{k: v for k, v in look.items() if k != "event"} for look in looks if look["event"] == "dev"]
    return {"seconds": round(time.perf_counter() - began, 1), "value": scores.main_value, "dev": dev}


def one_seed(domain: Domain, args: argparse.Namespace, seed: int, overrides: list[str]) -> Result:
    with tempfile.TemporaryDirectory() as place:
        before = fine_tune(domain, domain.model, args.labelled, seed, f"{place}/before")
        pretrained = pretrain(domain, place, args.epochs, seed, overrides)
        after = fine_tune(domain, f"{place}/pretrained", args.labelled, seed, f"{place}/after")
    return {
        "domain": args.domain, "seed": seed, "labelled": args.labelled, "epochs": args.epochs,
        "metric": before["metric"], "before": before["value"], "after": after["value"],
        "pretrained": pretrained, "overrides": overrides,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("domain", choices=DOMAINS)
    parser.add_argument("--labelled", type=int, default=500)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", help="file for a JSON line a seed")
    parser.add_argument("overrides", nargs="*")
    args, extra = parser.parse_known_args()
    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    rows = []
    for seed in args.seeds:
        row = one_seed(DOMAINS[args.domain], args, seed, [*args.overrides, *extra])
        rows.append(row)
        print(json.dumps(row), flush=True)
        if args.out:
            with Path(args.out).open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    gains = [row["after"] - row["before"] for row in rows]
    spread = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else float("nan")
    before, after = (statistics.mean(row[name] for row in rows) for name in ("before", "after"))
    half = T95.get(len(gains), 2.0) * spread
    print(f"{args.domain}: before {before:.4f}, after {after:.4f}, {after - before:+.4f} ± {half:.4f}")


if __name__ == "__main__":
    main()
