"""Dev scores of bertune and of transformers' Trainer: same model, rows, epochs, batch, rate, schedule, seeds.

    BERTUNE_DATA=DATA python benchmarks/quality.py sst2 --seeds 1 2 3 --out quality.jsonl
    BERTUNE_DATA=DATA BERTUNE_M3E=M3E python benchmarks/quality.py tnews data.limit=8000 --threads 1

For every seed first one, then the other. Prints each score, and mean and 95 % interval of the difference.
Both compute in what `train.precision` says, by default bf16 where the machine has units for it. The head
learns at the encoder's rate, as in the peer. Each keeps its best epoch.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

DATA = Path(os.environ.get("BERTUNE_DATA", "data"))
M3E = os.environ.get("BERTUNE_M3E", "")
COMMON = [
    "train.batch_size=32",
    "train.learning_rate=1e-4",
    "train.head_learning_rate=1e-4",
    "train.warmup_ratio=0.1",
    "train.micro_batch_tokens=null",
    "data.max_length=128",
]


def files(folder: str, train: str, dev: str) -> list[str]:
    return [f"data.train={DATA / folder / train}", f"data.dev={DATA / folder / dev}"]


def glue(folder: str) -> list[str]:
    return files(f"glue/{folder}", "train.tsv", "dev.tsv")


PAIR = "data.columns=[text,text_b,label]"
WORK: dict[str, tuple[str, str, list[str]]] = {
    "cola": ("classify", "minilm", [*glue("CoLA"), "data.columns=[_,label,_,text]", "options.metric=mcc",
                                    "train.epochs=3"]),
    "sst2": ("classify", "minilm", [*glue("SST-2"), "train.epochs=1"]),
    "mrpc": ("classify", "minilm", [*glue("MRPC"), "train.epochs=3"]),
    "rte": ("classify", "minilm", [*glue("RTE"), "train.epochs=3"]),
    "wnli": ("classify", "minilm", [*glue("WNLI"), "train.epochs=3"]),
    "stsb": ("regress", "minilm", [*glue("STS-B"), "train.epochs=3"]),
    "agnews": ("classify", "minilm", [*files("agnews", "train_10k.tsv", "test.tsv"),
                                      "data.columns=[text,label]", "train.epochs=1"]),
    "yelp": ("classify", "minilm", [*files("yelp", "dev.csv", "test.csv"),
                                    "data.columns={text: text, label: label2}", "train.epochs=1"]),
    "chnsenticorp": ("classify", M3E, [*files("chnsenticorp", "train.tsv", "dev.tsv"),
                                       "data.columns=[text,label]", "train.epochs=1"]),
    "tnews": ("classify", M3E, [*files("tnews", "train.tsv", "dev.tsv"), "data.columns=[text,label]",
                                "train.epochs=1"]),
    "afqmc": ("classify", M3E, [*files("afqmc", "train.txt", "dev.txt"), PAIR, "train.epochs=1"]),
    "ocnli": ("classify", M3E, [*files("ocnli", "train.10k.json", "dev.json"), "data.drop_labels=[-]",
                                "train.epochs=2"]),
    "stsb-zh": ("regress", M3E, [*files("sts-b-zh", "sts-b-train.txt", "sts-b-dev.txt"), PAIR,
                                 "train.epochs=3"]),
}  # fmt: skip
"""Task, encoder and settings of a data set: all training rows, the whole dev set."""


def ours(settings: list[str], seed: int, out: str) -> float:
    import bertune

    trained = bertune.train(settings[0], [*settings[1:], f"seed={seed}", f"out={out}"], quiet=True)
    return trained.scores["dev"].main_value


def theirs(settings: list[str], seed: int, out: str) -> float:
    """The run_glue recipe on the very rows that bertune trains on."""
    import numpy as np
    from datasets import Dataset
    from sklearn.metrics import matthews_corrcoef
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    from bertune.commands.train import prepare
    from bertune.encoders.pretrained import locate_model
    from bertune.kernels.precision import choose_device, choose_precision
    from bertune.tasks.base.reading import read_splits

    run, task = prepare(settings[0], [*settings[1:], f"seed={seed}"])
    splits = read_splits(task, run.data, run.seed, lambda _: None)
    folder = str(locate_model(run.model))
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def dataset(examples):
        encoded = tokenizer(
            *map(list, zip(*[e.texts for e in examples], strict=True)),
            truncation=True,
            max_length=run.data.max_length,
        )
        return Dataset.from_dict({**encoded, "labels": [task.encode_target(e.target) for e in examples]})

    regress = run.task == "regress"

    def metrics(found):
        if regress:
            return {"main": float(np.corrcoef(found.predictions[:, 0], found.label_ids)[0, 1])}
        predictions = found.predictions.argmax(-1)
        if run.options["metric"] == "mcc":
            return {"main": float(matthews_corrcoef(found.label_ids, predictions))}
        return {"main": float((predictions == found.label_ids).mean())}

    set_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=task.num_outputs)
    model.accepts_loss_kwargs = False
    t = run.train
    bf16 = choose_precision(t.precision, choose_device("cpu"))[0] == "bf16"
    arguments = TrainingArguments(
        out, num_train_epochs=t.epochs, per_device_train_batch_size=t.batch_size,
        per_device_eval_batch_size=64, learning_rate=t.learning_rate,
        weight_decay=t.weight_decay, warmup_steps=t.warmup_ratio, lr_scheduler_type="linear",
        max_grad_norm=t.max_grad_norm, seed=seed,
        eval_strategy="epoch", save_strategy="no", logging_strategy="no", report_to="none", use_cpu=True,
        disable_tqdm=True, bf16=bf16, optim="adamw_torch_fused",
    )  # fmt: skip
    trainer = Trainer(
        model, arguments, train_dataset=dataset(splits.train), eval_dataset=dataset(splits.dev),
        compute_metrics=metrics,
        data_collator=DataCollatorWithPadding(tokenizer), processing_class=tokenizer,
    )  # fmt: skip
    trainer.train()
    return max(entry["eval_main"] for entry in trainer.state.log_history if "eval_main" in entry)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", choices=WORK)
    parser.add_argument("--model")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out")
    parser.add_argument("overrides", nargs="*")
    args, extra = parser.parse_known_args()
    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    task, model, own = WORK[args.work]
    settings = [task, *COMMON, *own, f"model={args.model or model}", *args.overrides, *extra]
    rows = []
    for seed in args.seeds:
        row = {"seed": seed}
        for name, function in (("bertune", ours), ("trainer", theirs)):
            with tempfile.TemporaryDirectory() as place:
                began = time.perf_counter()
                row[name] = function(settings, seed, f"{place}/out")
                row[f"{name}_seconds"] = round(time.perf_counter() - began, 1)
        rows.append(row)
        print(args.work, json.dumps(row), flush=True)
    gains = [row["bertune"] - row["trainer"] for row in rows]
    mean = {name: statistics.mean(row[name] for row in rows) for name in ("bertune", "trainer")}
    spread = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else float("nan")
    t95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}.get(len(gains), 2.0)
    result = {
        "work": args.work,
        "settings": settings,
        "mean": mean,
        "gain": statistics.mean(gains),
        "gain_95": t95 * spread,
        "rows": rows,
    }
    print(json.dumps(result["mean"]), f"gain {result['gain']:+.4f} ± {result['gain_95']:.4f}")
    if args.out:
        with Path(args.out).open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
