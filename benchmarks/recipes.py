"""What recipes of fine-tuning bring: a base, and variants of it in one setting; several sets and seeds.

    BERTUNE_DATA=DATA BERTUNE_M3E=M3E python benchmarks/recipes.py --out recipes.jsonl --seeds 1 2 3
    python benchmarks/recipes.py --out recipes.jsonl --report

Every run is a line of FILE; a run that FILE has is left out, so the command can be stopped and repeated.
Seeds are the outer loop: each seed draws other training rows, the same for all variants. Dev rows (at most
1,000, the same in every run) choose nothing: the model is that of the last step. One thread; the precision is
bertune's `auto`. `passes` tells the cost of a step in passes, and `epochs2` is the base at twice the cost.
`--set train.learning_rate=3e-5` changes the base; give another FILE for another base.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

DATA, M3E = Path(os.environ.get("BERTUNE_DATA", "data")), os.environ.get("BERTUNE_M3E", "m3e-small")
MOST_DEV_ROWS = 1000
T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}


@dataclass(frozen=True)
class Work:
    """A set: its task, encoder, files below DATA, training rows, and settings."""

    task: str
    model: str
    train: str
    dev: str
    limit: int | None = None
    settings: tuple[str, ...] = ()
    dev_header: bool = False
    epochs: float = 3


PAIRS = "data.columns=[text,text_b,label]"
SINGLE = "data.columns=[text,label]"
WEIBO = ("ner/weibo/train.json", "ner/weibo/dev.json")
SETS = {
    "sst2": Work("classify", "minilm", "glue/SST-2/train.tsv", "glue/SST-2/dev.tsv", 1000, dev_header=True),
    "rte": Work("classify", "minilm", "glue/RTE/train.tsv", "glue/RTE/dev.tsv", 1500, dev_header=True),
    "mrpc": Work("classify", "minilm", "glue/MRPC/train.tsv", "glue/MRPC/dev.tsv", 1500, dev_header=True),
    "cola": Work("classify", "minilm", "glue/CoLA/train.tsv", "glue/CoLA/dev.tsv", 2000,
                 ("data.columns=[_,label,_,text]", "options.metric=mcc")),
    "stsb": Work("regress", "minilm", "glue/STS-B/train.tsv", "glue/STS-B/dev.tsv", 1000, dev_header=True),
    "wnut17": Work("tag", "minilm", "ner/wnut17/wnut17train.conll", "ner/wnut17/emerging.dev.conll", 1000),
    "tnews": Work("classify", M3E, "tnews/train.tsv", "tnews/dev.tsv", 2000, (SINGLE,)),
    "chnsenticorp": Work("classify", M3E, "chnsenticorp/train.tsv", "chnsenticorp/dev.tsv", 500,
                         (SINGLE, "data.max_length=128")),
    "ocnli": Work("classify", M3E, "ocnli/train.10k.json", "ocnli/dev.json", 2000, ("data.drop_labels=[-]",)),
    "weibo1": Work("tag", M3E, *WEIBO, epochs=1),
    "weibo3": Work("tag", M3E, *WEIBO),
    "resume": Work("tag", M3E, "ner/resume/train.json", "ner/resume/dev.json", 500),
    "stsbzh": Work("match", M3E, "sts-b-zh/sts-b-train.txt", "sts-b-zh/sts-b-dev.txt", 1000, (PAIRS,)),
}  # fmt: skip
CLASSIFY = ("classify",)
ALL = ("classify", "regress", "tag", "match")


@dataclass(frozen=True)
class Variant:
    """Settings beside the base's, the passes of a step, and the tasks that have the settings."""

    settings: tuple[str, ...] = ()
    passes: int = 1
    tasks: tuple[str, ...] = ALL
    times_epochs: float = 1
    base: str = "base"
    """The variant with the same cost, to compare with."""


VARIANTS = {
    "base": Variant(),
    "epochs2": Variant(times_epochs=2, passes=2),
    "layer_decay0.95": Variant(("train.layer_decay=0.95",)),
    "layer_decay0.9": Variant(("train.layer_decay=0.9",)),
    "head_rate2e-4": Variant(("train.head_learning_rate=2e-4",), tasks=("classify", "regress", "tag")),
    "head_rate1e-3": Variant(("train.head_learning_rate=1e-3",), tasks=("classify", "regress", "tag")),
    "head_rate5e-3": Variant(("train.head_learning_rate=5e-3",), tasks=("classify", "regress", "tag")),
    "rate1e-4": Variant(("train.learning_rate=1e-4",)),
    "rate2e-4": Variant(("train.learning_rate=2e-4",)),
    "reinit1": Variant(("train.reinit_layers=1",)),
    "reinit2": Variant(("train.reinit_layers=2",)),
    "ema0.99": Variant(("train.ema=0.99",)),
    "ema0.999": Variant(("train.ema=0.999",)),
    "warmup0.2": Variant(("train.warmup_ratio=0.2",)),
    "warmup0": Variant(("train.warmup_ratio=0",)),
    "class_weights": Variant(("options.class_weights=balanced",), tasks=CLASSIFY),
    "label_smoothing0.1": Variant(("options.label_smoothing=0.1",), tasks=CLASSIFY),
    "r_drop1": Variant(("train.r_drop=1.0",), passes=2, base="epochs2"),
    "fgm1": Variant(("train.fgm=1.0",), passes=2, base="epochs2"),
}


def cut_dev(work: Work, place: Path) -> Path:
    """Return the file of the dev rows, cut to MOST_DEV_ROWS lines drawn once and for all."""
    file = DATA / work.dev
    if work.task == "tag":
        return file  # all of these have about 1,000 sentences or fewer
    lines = file.read_text(encoding="utf-8-sig").rstrip("\n").split("\n")
    head, rows = lines[: work.dev_header], lines[work.dev_header :]
    if len(rows) <= MOST_DEV_ROWS:
        return file
    kept = sorted(random.Random(0).sample(range(len(rows)), MOST_DEV_ROWS))
    cut = place / f"dev-{file.parent.name}{file.suffix}"
    cut.write_text("\n".join([*head, *(rows[n] for n in kept)]) + "\n", encoding="utf-8")
    return cut


def settings_of(work: Work, variant: Variant, seed: int, place: Path, changed: list[str]) -> list[str]:
    """Return the settings of a run as `bertune train` reads them; `changed` come before the variant's."""
    limit = [f"data.limit={work.limit}"] if work.limit else []
    base = [
        f"model={work.model}", f"data.train={DATA / work.train}", f"data.dev={cut_dev(work, place)}",
        *limit, *work.settings, f"train.epochs={work.epochs * variant.times_epochs}",
        "train.eval_every=end", "train.checkpoint_every=never", f"seed={seed}",
    ]  # fmt: skip
    return [*base, *changed, *variant.settings]


def train_once(name: str, variant: str, seed: int, changed: list[str]) -> dict[str, Any] | None:
    """Return the line of a run; None, and a word about it, where this bertune has no such setting."""
    import bertune

    work = SETS[name]
    with tempfile.TemporaryDirectory() as folder:
        settings = settings_of(work, VARIANTS[variant], seed, Path(folder), changed)
        began = time.perf_counter()
        try:
            trained = bertune.train(work.task, [*settings, f"out={folder}/out"], quiet=True)
        except bertune.ConfigError as error:
            print(f"{name} {variant}: left out: {str(error).split('; allowed')[0]}", flush=True)
            return None
        run = json.loads((trained.folder / "scores.json").read_text(encoding="utf-8"))["run"]
    dev = trained.scores["dev"]
    return {
        "set": name, "variant": variant, "seed": seed, "changed": changed, "metric": dev.main_metric,
        "score": dev.main_value, "scores": dev.values, "steps": run["steps"],
        "train_seconds": run["train_seconds"], "seconds": round(time.perf_counter() - began, 1),
        "passes": VARIANTS[variant].passes,
    }  # fmt: skip


def read_lines(out: Path) -> list[dict[str, Any]]:
    """Return the runs of a file; a last line that was cut off is left out."""
    rows = []
    for line in out.read_text(encoding="utf-8").splitlines() if out.is_file() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            print(f"{out}: a line that is not whole is left out")
    return rows


def mean_and_interval(values: list[float]) -> tuple[float, float]:
    """Return the mean, and half of its 95 % interval by Student's t; nan for a single value."""
    if len(values) < 2:
        return statistics.mean(values), float("nan")
    half = T95.get(len(values), 1.96) * statistics.stdev(values) / len(values) ** 0.5
    return statistics.mean(values), half


def gains_of(rows: list[dict[str, Any]], base: str | None = None) -> dict[str, dict[str, list[float]]]:
    """Return by variant and set the gains over the base, a number for each seed that has both."""
    score = {(r["set"], r["variant"], r["seed"]): r["score"] for r in rows}
    gains: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (name, variant, seed), value in score.items():
        other = score.get((name, base or VARIANTS[variant].base, seed))
        if other is not None and variant != (base or VARIANTS[variant].base):
            gains[variant][name].append(value - other)
    return gains


def report(rows: list[dict[str, Any]]) -> None:
    """Print a table: the base's scores, and for each variant the gain on each set and over all sets."""
    names = [name for name in SETS if any(r["set"] == name for r in rows)]
    by_run: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_run[row["set"], row["variant"]].append(row)
    print(f"| variant | over | {' | '.join(names)} | sets, mean | better, worse | time |")
    print(f"|---|---|{'---|' * (len(names) + 3)}")
    for variant in ("base", "epochs2"):
        cells = [by_run[name, variant] for name in names]
        means = [f"{statistics.mean(r['score'] for r in c):.4f} (n={len(c)})" if c else "" for c in cells]
        print(f"| {variant} | - | {' | '.join(means)} | | | |")
    for base in (None, "base"):  # the second time: those with another base, over the plain one
        for variant, gains in gains_of(rows, base).items():
            if base is not None and VARIANTS[variant].base == base:
                continue
            print(line_of(variant, gains, names, by_run, base or VARIANTS[variant].base))


def line_of(variant: str, gains: dict[str, list[float]], names: list[str], by_run: Any, base: str) -> str:
    """Return the row of a variant."""
    cells, means = [], []
    for name in names:
        if not gains.get(name):
            cells.append("")
            continue
        mean, half = mean_and_interval(gains[name])
        means.append(mean)
        cells.append(f"{mean:+.4f}" + (f" ± {half:.4f}" if half == half else ""))
    mean, half = mean_and_interval(means)
    seconds = [
        statistics.mean(r["train_seconds"] for r in by_run[name, variant])
        / statistics.mean(r["train_seconds"] for r in by_run[name, "base"])
        for name in names
        if by_run[name, variant] and by_run[name, "base"]
    ]
    wins = f"{sum(m > 0 for m in means)}, {sum(m < 0 for m in means)}"
    factor = f"{statistics.geometric_mean(seconds):.2f}" if seconds else ""
    return f"| {variant} | {base} | {' | '.join(cells)} | {mean:+.4f} ± {half:.4f} | {wins} | {factor} |"


def run_all(sets: list[str], variants: list[str], seeds: list[int], changed: list[str], out: Path) -> None:
    """Train what the file does not have yet, and add a line for each run."""
    import torch

    torch.set_num_threads(1)
    done = {(r["set"], r["variant"], r["seed"]) for r in read_lines(out)}
    runs = [(name, variant, seed) for seed in seeds for name in sets for variant in variants]
    for name, variant, seed in runs:
        if SETS[name].task not in VARIANTS[variant].tasks or (name, variant, seed) in done:
            continue
        row = train_once(name, variant, seed, changed)
        if row is None:
            continue
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        figure = f"{row['metric']} {row['score']:.4f} ({row['seconds']:.0f} s)"
        print(f"{name} {variant} seed {seed}: {figure}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="V")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), metavar="SET")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", dest="changed")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, one a run")
    parser.add_argument("--report", action="store_true", help="print the table of FILE, train nothing")
    args = parser.parse_args()
    if not args.report:
        others = [r["changed"] for r in read_lines(args.out) if r["changed"] != args.changed]
        if others:
            parser.error(
                f"{args.out} has runs with --set {' '.join(others[0]) or 'nothing'}; name another --out"
            )
        run_all(args.sets, args.variants, args.seeds, args.changed, args.out)
    report(read_lines(args.out))


if __name__ == "__main__":
    main()
