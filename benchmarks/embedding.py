"""Dev scores of bertune's match and embed and of sentence-transformers, with the same settings.

Encoder, rows, loss, epochs, batch size, learning rate and schedule are the same.

    export BERTUNE_DATA=DATA BERTUNE_M3E=M3E
    python benchmarks/embedding.py stsb-zh-cosent --seeds 1 2 3 --out embedding.jsonl
    python benchmarks/embedding.py afqmc-softmax --limit 10000 --epochs 1 --threads 1

For every seed first one, then the other (SentenceTransformerTrainer), both in bf16 where the processor has
units for it. The rows are written once as JSON lines, which both read. Scored are the weights after the last
step, all by sentence-transformers in fp32, which opens the folder that bertune has written: Spearman of the
cosine for scored pairs, average precision of the cosine for pairs labelled 0 and 1; of softmax also the
accuracy of the head that was trained with it. `own` is what bertune itself said at the end. Seconds are those
of training alone. Further arguments are settings of bertune, as `options.mask_false_negatives=true`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

DATA = Path(os.environ.get("BERTUNE_DATA", "data"))
Row = dict[str, Any]

COMMON = [
    "train.precision=auto", "train.schedule=linear", "train.warmup_ratio=0.1", "train.weight_decay=0.01",
    "train.max_grad_norm=1",
    "train.micro_batch_tokens=null", "train.eval_every=1000000", "data.max_length=128", "device=cpu",
    "options.pooling=mean",
]  # fmt: skip
LOSSES: dict[str, tuple[str, list[str]]] = {
    "cosent": ("match", ["options.loss=cosent", "options.scale=20"]),
    "cosine": ("match", ["options.loss=cosine"]),
    "softmax": ("match", ["options.loss=softmax"]),
    "negatives": ("embed", ["options.scale=20", "options.margin=0", "options.mask_false_negatives=false"]),
}
"""Task and settings of bertune that give the peer's loss; sentence-transformers masks no repeated texts."""
MAX_LENGTH = 128


def lines(path: str) -> list[str]:
    return [line.rstrip("\r\n") for line in (DATA / path).open(encoding="utf-8-sig", newline="\n")]


def pairs(path: str, columns: tuple[int, int, int], kind: type = float, header: bool = False) -> list[Row]:
    cells = [line.split("\t") for line in lines(path)[header:]]
    a, b, label = columns
    return [{"text": c[a].strip("\ufeff"), "text_b": c[b], "label": kind(c[label])} for c in cells]


def stsb_en(part: str) -> list[Row]:
    return pairs(f"glue/STS-B/{part}.tsv", (7, 8, 9), header=True)


def stsb_zh(part: str) -> list[Row]:
    return pairs(f"sts-b-zh/sts-b-{part}.txt", (0, 1, 2))


def afqmc(part: str) -> list[Row]:
    return pairs(f"afqmc/{part}.txt", (0, 1, 2), int)


def atec(part: str) -> list[Row]:
    """Of the only labelled file the last tenth is dev."""
    rows = pairs("atec/atec_nlp_sim_train.csv", (1, 2, 3), int)
    cut = len(rows) - len(rows) // 10
    return rows[:cut] if part == "train" else rows[cut:]


def simclue(part: str) -> list[Row]:
    if part == "dev":
        return stsb_zh("dev")
    rows = [json.loads(line) for line in lines("simclue/train_pair_postive_1w.json")]
    return [{"text": row["query"], "text_b": row["title"]} for row in rows]


def wiki(part: str) -> list[Row]:
    if part == "dev":
        return stsb_zh("dev")
    return [{"text": line} for line in lines("raw-zh/wiki.zh-cn.txt") if line.strip()]


@dataclass(frozen=True)
class Work:
    """What is learnt from what; `read` takes train or dev."""

    read: Callable[[str], list[Row]]
    loss: str
    model: str = "m3e"
    epochs: float = 1
    batch: int = 32
    rate: float = 5e-5


WORKS = {
    "stsb-en-cosent": Work(stsb_en, "cosent", "minilm", epochs=3),
    "stsb-en-cosine": Work(stsb_en, "cosine", "minilm", epochs=3),
    "stsb-zh-cosent": Work(stsb_zh, "cosent", epochs=3),
    "stsb-zh-cosine": Work(stsb_zh, "cosine", epochs=3),
    "afqmc-softmax": Work(afqmc, "softmax"),
    "atec-softmax": Work(atec, "softmax"),
    "simclue-negatives": Work(simclue, "negatives", batch=64),
    "wiki-simcse": Work(wiki, "negatives", batch=64, rate=3e-5),
}


@dataclass(frozen=True)
class Run:
    """One work as both tools do it."""

    loss: str
    model: str
    """What bertune's `model=` takes."""
    rows: dict[str, list[Row]]
    """Of train and dev."""
    epochs: float
    batch: int
    rate: float
    overrides: Sequence[str] = ()

    def settings(self, seed: int, place: str) -> list[str]:
        files = [f"data.{part}={place}/{part}.jsonl" for part in self.rows]
        own = [
            f"model={self.model}",
            f"train.epochs={self.epochs}",
            f"train.batch_size={self.batch}",
            f"train.learning_rate={self.rate}",
        ]
        return [
            *COMMON,
            *LOSSES[self.loss][1],
            *files,
            *own,
            f"seed={seed}",
            f"out={place}/out",
            *self.overrides,
        ]

    def write(self, place: str) -> None:
        for part, rows in self.rows.items():
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            Path(place, f"{part}.jsonl").write_text(text, encoding="utf-8")


def run_of(name: str, args: argparse.Namespace) -> Run:
    """Read a work and draw its rows, the same ones for every seed."""
    work = WORKS[name]
    model = work.model if work.model != "m3e" else os.environ.get("BERTUNE_M3E", "")
    if not model:
        raise SystemExit("error: BERTUNE_M3E must be the folder of m3e-small")
    train = work.read("train")
    if args.limit and args.limit < len(train):
        train = random.Random(42).sample(train, args.limit)
    rows = {"train": train, "dev": work.read("dev")}
    return Run(
        work.loss,
        model,
        rows,
        args.epochs or work.epochs,
        args.batch or work.batch,
        args.rate or work.rate,
        args.overrides,
    )


def figures(model: Any, dev: list[Row]) -> dict[str, float]:
    """Score a SentenceTransformer on pairs."""
    from scipy.stats import spearmanr
    from sklearn.metrics import average_precision_score

    a, b = (
        model.encode([row[name] for row in dev], normalize_embeddings=True, show_progress_bar=False)
        for name in ("text", "text_b")
    )
    cosines, gold = (a * b).sum(1), [row["label"] for row in dev]
    if set(gold) <= {0, 1}:
        return {"average_precision": float(average_precision_score(gold, cosines))}
    return {"spearman": float(spearmanr(gold, cosines).statistic)}


def ours(run: Run, seed: int, *, score: bool = True) -> dict[str, Any]:
    import bertune

    with tempfile.TemporaryDirectory() as place:
        run.write(place)
        trained = bertune.train(LOSSES[run.loss][0], run.settings(seed, place), quiet=True)
        found = json.loads((trained.folder / "scores.json").read_text(encoding="utf-8"))["run"]
        result: dict[str, Any] = {"seconds": found["train_seconds"]}
        if score:
            from sentence_transformers import SentenceTransformer

            own = dict(trained.scores["dev"].values)
            result |= {
                **figures(SentenceTransformer(str(trained.folder), device="cpu"), run.rows["dev"]),
                "own": own,
            }
            if run.loss == "softmax":
                result["accuracy"] = own["accuracy"]
    return result


def theirs(run: Run, seed: int, *, score: bool = True) -> dict[str, Any]:
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer import losses
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import set_seed

    from bertune.encoders.pretrained import locate_model
    from bertune.kernels.precision import choose_device, choose_precision

    set_seed(seed)
    encoder = Transformer(str(locate_model(run.model)), max_seq_length=MAX_LENGTH)
    width = encoder.get_embedding_dimension()
    model = SentenceTransformer(modules=[encoder, Pooling(width, "mean")], device="cpu")
    train = run.rows["train"]
    columns = {
        "text": [row["text"] for row in train],
        "text_b": [row.get("text_b", row["text"]) for row in train],
    }
    if run.loss != "negatives":
        columns["label"] = [row["label"] for row in train]
    if run.loss == "cosine":
        low, high = min(columns["label"]), max(columns["label"])
        columns["label"] = [(label - low) / (high - low) for label in columns["label"]]
    loss = {
        "cosent": lambda: losses.CoSENTLoss(model, scale=20.0),
        "cosine": lambda: losses.CosineSimilarityLoss(model),
        "softmax": lambda: losses.SoftmaxLoss(model, width, num_labels=len(set(columns["label"]))),
        "negatives": lambda: losses.MultipleNegativesRankingLoss(model, scale=20.0),
    }[run.loss]()
    with tempfile.TemporaryDirectory() as place:
        arguments = SentenceTransformerTrainingArguments(
            place, num_train_epochs=run.epochs, per_device_train_batch_size=run.batch, learning_rate=run.rate,
            weight_decay=0.01,
            warmup_steps=0.1, lr_scheduler_type="linear", max_grad_norm=1.0, seed=seed,
            optim="adamw_torch_fused", use_cpu=True,
            bf16=choose_precision("auto", choose_device("cpu"))[0] == "bf16",
            save_strategy="no", logging_strategy="no", report_to="none", disable_tqdm=True,
        )  # fmt: skip
        trainer = SentenceTransformerTrainer(
            model, arguments, train_dataset=Dataset.from_dict(columns), loss=loss
        )
        began = time.perf_counter()
        trainer.train()
        result: dict[str, Any] = {"seconds": time.perf_counter() - began}
    if score:
        model.eval()
        result |= figures(model, run.rows["dev"])
        if run.loss == "softmax":
            result["accuracy"] = accuracy(model, loss.classifier, run.rows["dev"])
    return result


def accuracy(model: Any, classifier: Any, dev: list[Row]) -> float:
    """Of the head of SoftmaxLoss, whose labels are ids."""
    import torch

    u, v = (
        model.encode([row[name] for row in dev], convert_to_tensor=True, show_progress_bar=False).clone()
        for name in ("text", "text_b")
    )
    with torch.no_grad():
        said = classifier(torch.cat([u, v, (u - v).abs()], 1)).argmax(1).tolist()
    return statistics.mean(row["label"] == label for row, label in zip(dev, said, strict=True))


TOOLS = {"bertune": ours, "peer": theirs}


def summary(rows: list[Row], tools: Sequence[str]) -> Row:
    """Means, and the mean difference of bertune and peer with half its 95 % interval by Student's t."""
    from scipy.stats import t

    names = [name for name, value in rows[0][tools[0]].items() if isinstance(value, float)]
    found: Row = {
        tool: {name: statistics.mean(row[tool][name] for row in rows) for name in names} for tool in tools
    }
    if set(tools) == set(TOOLS):
        for name in names:
            each = [row["bertune"][name] - row["peer"][name] for row in rows]
            half = (
                t.ppf(0.975, len(each) - 1) * statistics.stdev(each) / math.sqrt(len(each))
                if len(each) > 1
                else None
            )
            found.setdefault("difference", {})[name] = [statistics.mean(each), half]
    return found


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: rounded(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    return round(value, 4) if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", choices=WORKS)
    parser.add_argument("overrides", nargs="*", help="further settings of bertune, section.name=value")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    parser.add_argument("--limit", type=int, help="training rows, drawn once")
    parser.add_argument("--epochs", type=float)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", help="file to add a line of JSON to")
    args, extra = parser.parse_known_args()
    if any(text.startswith("-") for text in extra):
        parser.error(f"unknown: {' '.join(extra)}")
    args.overrides += extra
    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    run = run_of(args.work, args)
    rows: list[Row] = []
    for seed in args.seeds:
        rows.append({"seed": seed, **{tool: TOOLS[tool](run, seed) for tool in args.tools}})
        print(args.work, json.dumps(rounded(rows[-1])), flush=True)
    found = summary(rows, args.tools)
    print(args.work, json.dumps(rounded(found)))
    if args.out:
        sizes = {part: len(found_rows) for part, found_rows in run.rows.items()}
        line = {
            "work": args.work,
            "rows_of": sizes,
            "settings": run.settings(0, "PLACE"),
            "rows": rows,
            "summary": found,
        }
        with Path(args.out).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
