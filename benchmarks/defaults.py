"""Which default rates learn: short runs of every task on every set, under several rules.

    BERTUNE_DATA=DATA python benchmarks/defaults.py --out FILE.jsonl --zh FOLDER --rules old auto --epochs 1 3
    BERTUNE_DATA=DATA python benchmarks/defaults.py --out FILE.jsonl --zh FOLDER --sets weibo sst2 \
        --rules 1e-4/1e-3/0.1 2e-4/3e-3/0.1
    python benchmarks/defaults.py --table FILE.jsonl --rules old auto --epochs 1 3

A rule is `old` (5e-5 for encoder and head, a warm-up of a tenth of the steps: the defaults of the first
releases), `auto` (the defaults of today), or LEARNING_RATE/HEAD_RATE/WARMUP_RATIO; a head rate of `=` is the
learning rate, and a part `auto` is left to the defaults.

Everything else is the default of `bertune train`: batches of 32 rows, the linear schedule, the best epoch by
dev score. Large sets are cut to the rows named in SETS, drawn by label, and dev rows to `--dev-rows`. Writes
a JSON line a run; runs that are in the file already are not repeated.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from bertune.commands.train import prepare
from bertune.config.schema import RunConfig
from bertune.console import Console
from bertune.selection.fit import fit
from bertune.tasks.base.datasets import read_datasets
from bertune.tasks.base.reading import Splits
from bertune.tasks.base.task import Task

DATA = Path(os.environ.get("BERTUNE_DATA", "data"))
PAIR = "data.columns=[text,text_b,label]"


def files(train: str, dev: str | None = None) -> list[str]:
    return [f"data.train={DATA / train}", *([f"data.dev={DATA / dev}"] if dev else [])]


def glue(name: str) -> list[str]:
    return files(f"glue/{name}/train.tsv", f"glue/{name}/dev.tsv")


STS_ZH = [*files("sts-b-zh/sts-b-train.txt", "sts-b-zh/sts-b-dev.txt"), PAIR]
AFQMC = [*files("afqmc/train.txt", "afqmc/dev.txt"), PAIR]
YELP = files("yelp/dev.csv")
SETS: dict[str, tuple[str, str, int | None, list[str]]] = {
    # name: language, task, rows to train on (None: all), settings
    "weibo": ("zh", "tag", None, files("ner/weibo/train.all.bmes", "ner/weibo/dev.all.bmes")),
    "weibo crf": ("zh", "tag", 480, [*files("ner/weibo/train.all.bmes", "ner/weibo/dev.all.bmes"),
                                      "options.decoder=crf"]),
    "resume": ("zh", "tag", 1000, files("ner/resume/train.char.bmes", "ner/resume/dev.char.bmes")),
    "msra": ("zh", "tag", 1500, files("ner/msra/train.txt", "ner/msra/dev.txt")),
    "wnut17": ("en", "tag", 2000, files("ner/wnut17/wnut17train.conll", "ner/wnut17/emerging.dev.conll")),
    "sst2": ("en", "classify", 2000, glue("SST-2")),
    "cola": ("en", "classify", None, [*glue("CoLA"), "data.columns=[_,label,_,text]", "options.metric=mcc"]),
    "mrpc": ("en", "classify", 1500, glue("MRPC")),
    "rte": ("en", "classify", 1000, glue("RTE")),
    "wnli": ("en", "classify", None, glue("WNLI")),
    "agnews": ("en", "classify", 1000,
               [*files("agnews/train_10k.tsv", "agnews/test.tsv"), "data.columns=[text,label]"]),
    "yelp stars": ("en", "classify", 600,
                   [*YELP, "data.columns={text: text, label: label2}", "data.max_length=64"]),
    "tnews": ("zh", "classify", 2000,
              [*files("tnews/train.tsv", "tnews/dev.tsv"), "data.columns=[text,label]"]),
    "chnsenticorp": ("zh", "classify", 600,
                     [*files("chnsenticorp/train.tsv", "chnsenticorp/dev.tsv"), "data.columns=[text,label]",
                      "data.max_length=64"]),
    "afqmc": ("zh", "classify", 3000, AFQMC),
    "atec": ("zh", "classify", 2000, [*files("atec/atec_nlp_sim_train.csv"), "data.format=tsv",
                                      "data.columns=[_,text,text_b,label]"]),
    "ocnli": ("zh", "classify", 2000,
              [*files("ocnli/train.10k.json", "ocnli/dev.json"), "data.drop_labels=[-]"]),
    "stsb": ("en", "regress", 1500, glue("STS-B")),
    "sts zh": ("zh", "regress", 1500, STS_ZH),
    "yelp number": ("en", "regress", 600, ["yelp-numbers", "data.max_length=64"]),
    "match sts zh": ("zh", "match", 1000, STS_ZH),
    "match stsb": ("en", "match", 1000, glue("STS-B")),
    "match afqmc": ("zh", "match", 1000, AFQMC),
    "match softmax": ("zh", "match", 1000, [*AFQMC, "options.loss=softmax"]),
    "match simclue": ("zh", "match", 1000, files("simclue/train_pair_1w.json")),
    "embed simclue": ("zh", "embed", 1000, ["simclue-and-sts"]),
    "embed tatoeba": ("zh", "embed", 1000, [*files("tatoeba-en-zh/cmn.txt"), "data.columns=[text,text_b,_]"]),
}  # fmt: skip


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def made_files(kind: str, place: Path) -> list[str]:
    """Return the files of a set that is made of others."""
    if kind == "yelp-numbers":
        import csv

        with (DATA / "yelp/dev.csv").open(encoding="utf-8", newline="") as file:
            read = list(csv.DictReader(file))
        rows = [{"text": row["text"], "label": float(row["label2"].split()[-1])} for row in read]
        train = write_rows(place / "yelp.jsonl", rows)
        return [f"data.train={train}"]
    lines = (DATA / "sts-b-zh/sts-b-dev.txt").read_text(encoding="utf-8").splitlines()
    pairs = [dict(zip(("text", "text_b", "label"), line.split("\t"), strict=True)) for line in lines]
    dev = write_rows(place / "sts.jsonl", [{**pair, "label": float(pair["label"])} for pair in pairs])
    source = (DATA / "simclue/train_pair_postive_1w.json").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in source]
    rows = [{"text": row["query"], "text_b": row["title"]} for row in found]
    train = write_rows(place / "simclue.jsonl", rows)
    return [f"data.train={train}", f"data.dev={dev}"]


def rule_settings(rule: str, task: str) -> list[str]:
    """Return a rule as settings; embed has no layer that would learn at a head's rate."""
    if rule == "auto":
        return []
    rate, head, warmup = ("5e-5", "=", "0.1") if rule == "old" else rule.split("/")
    head = rate if head == "=" else head
    given = {"learning_rate": rate, "warmup_ratio": warmup}
    if task in ("classify", "regress", "tag"):
        given["head_learning_rate"] = head
    return [f"train.{name}={value}" for name, value in given.items() if value != "auto"]


def overrides_of(
    name: str, rule: str, epochs: int, seed: int, args: argparse.Namespace, place: Path
) -> list[str]:
    language, task, limit, settings = SETS[name]
    made = [] if "=" in settings[0] else made_files(settings[0], place)
    return [
        *made, *settings[bool(made) :], f"model={args.zh if language == 'zh' else args.en}", f"seed={seed}",
        f"train.epochs={epochs}", "data.cache=off", *([f"data.limit={limit}"] if limit else []),
        *rule_settings(rule, task),
    ]  # fmt: skip


def run_once(run: RunConfig, task: Task, splits: Splits) -> dict[str, Any]:
    """Train once and return what came of it."""
    heard: list[str] = []
    console = Console(quiet=True)
    console.info = heard.append  # type: ignore[method-assign]
    scores: list[float] = []
    began = time.perf_counter()
    on_scores = lambda found, *_: scores.append(found.main_value)  # noqa: E731
    done = fit(run, copy.deepcopy(task), splits, console=console, on_scores=on_scores)
    assert done.scores is not None
    return {
        "rows": len(splits.train), "dev_rows": len(splits.dev), "steps": done.outcome.steps,
        "metric": done.scores.main_metric, "score": max(scores), "last": scores[-1],
        "auto": [line for line in heard if line.startswith("auto:")],
        "seconds": round(time.perf_counter() - began, 1),
    }  # fmt: skip


def run_set(name: str, args: argparse.Namespace, done: set[tuple[Any, ...]], out: Path) -> None:
    """Read the rows of a set once a seed, and train on them by each rule; rows are the same for all."""
    task_name = SETS[name][1]
    for seed in args.seeds:
        wanted = [(epochs, rule) for epochs in args.epochs for rule in args.rules]
        wanted = [(epochs, rule) for epochs, rule in wanted if (name, rule, epochs, seed) not in done]
        splits = None
        with tempfile.TemporaryDirectory() as place:
            for epochs, rule in wanted:
                run, task = prepare(task_name, overrides_of(name, rule, epochs, seed, args, Path(place)))
                if splits is None:
                    learnt = task
                    splits = read_datasets(run, learnt, Console(quiet=True))
                    dev = list(splits.dev)
                    random.Random(0).shuffle(dev)
                    splits.dev = dev[: args.dev_rows]
                key = {"set": name, "task": task_name, "rule": rule, "epochs": epochs, "seed": seed}
                line = key | run_once(run, learnt, splits)
                with out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                print(*key.values(), line["metric"], round(line["score"], 4), line["seconds"], flush=True)


def table(args: argparse.Namespace) -> None:
    """Print a Markdown table: a row a set, a column a rule and number of epochs."""
    lines = [json.loads(line) for line in Path(args.table).read_text(encoding="utf-8").splitlines()]
    columns = [(rule, epochs) for epochs in args.epochs for rule in args.rules]
    heads = [f"{rule}, {epochs} epoch{'s' * (epochs > 1)}" for rule, epochs in columns]
    print("| task | set | rows | metric |", " | ".join(heads), "|")
    print("|" + "---|" * (4 + len(columns)))
    for name in SETS:
        of_set = [line for line in lines if line["set"] == name]
        if not of_set:
            continue
        cells = []
        for rule, epochs in columns:
            found = [x["score"] for x in of_set if (x["rule"], x["epochs"]) == (rule, epochs)]
            cells.append(f"{sum(found) / len(found):.4f}" if found else "")
        first = of_set[0]
        print(f"| {first['task']} | {name} | {first['rows']} | {first['metric']} |", " | ".join(cells), "|")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", default="defaults.jsonl")
    parser.add_argument("--table", help="print the table of such a file")
    parser.add_argument("--zh", default="", help="folder of a Chinese encoder")
    parser.add_argument("--en", default="minilm")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--rules", nargs="+", default=["old", "auto"])
    parser.add_argument("--epochs", type=int, nargs="+", default=[1])
    parser.add_argument("--seeds", type=int, nargs="+", default=[42])
    parser.add_argument("--dev-rows", type=int, default=150)
    args = parser.parse_args()
    if args.table:
        table(args)
        return
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    out = Path(args.out)
    lines = out.read_text(encoding="utf-8").splitlines() if out.exists() else []
    known = [json.loads(line) for line in lines]
    done = {(x["set"], x["rule"], x["epochs"], x["seed"]) for x in known}
    for name in args.sets:
        if SETS[name][0] == "en" or args.zh:
            run_set(name, args, done, out)


if __name__ == "__main__":
    main()
