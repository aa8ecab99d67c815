"""Dev scores of bertune and of transformers' Trainer: same model, rows, epochs, batch, rate, schedule, seeds.

    BERTUNE_DATA=DATA python benchmarks/quality.py sst2 --model minilm --seeds 1 2 3 --out quality.json

For every seed first one, then the other. Prints each score, and mean and 95 % interval of the difference.
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
COMMON = [
    "train.batch_size=32",
    "train.learning_rate=5e-5",
    "train.head_learning_rate=null",  # one rate for all, as Trainer has it
    "train.warmup_ratio=0.1",
    "train.precision=fp32",
    "train.micro_batch_tokens=null",
]
WORK = {
    "chnsenticorp": ["classify", f"data.train={DATA}/chnsenticorp/train.tsv",
                     f"data.dev={DATA}/chnsenticorp/dev.tsv",
                     "data.columns=[text,label]", "data.max_length=128", "data.limit=960", "train.epochs=1"],
    "sst2": ["classify", f"data.train={DATA}/glue/SST-2/train.tsv", f"data.dev={DATA}/glue/SST-2/dev.tsv",
             "data.max_length=128", "data.limit=1920", "train.epochs=1"],
    "mrpc": ["classify", f"data.train={DATA}/glue/MRPC/train.tsv", f"data.dev={DATA}/glue/MRPC/dev.tsv",
             "data.max_length=128", "data.limit=1280", "train.epochs=2"],
    "stsb": ["regress", f"data.train={DATA}/glue/STS-B/train.tsv", f"data.dev={DATA}/glue/STS-B/dev.tsv",
             "data.max_length=128", "data.limit=1920", "train.epochs=1"],
}  # fmt: skip


def ours(settings: list[str], seed: int, out: str) -> float:
    import bertune

    trained = bertune.train(settings[0], [*settings[1:], f"seed={seed}", f"out={out}"], quiet=True)
    return trained.scores["dev"].main_value


def theirs(settings: list[str], seed: int, out: str) -> float:
    """The run_glue recipe on the very rows that bertune trains on."""
    import numpy as np
    from datasets import Dataset
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
        predictions = found.predictions[:, 0] if regress else found.predictions.argmax(-1)
        if regress:
            return {"main": float(np.corrcoef(predictions, found.label_ids)[0, 1])}
        return {"main": float((predictions == found.label_ids).mean())}

    set_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=task.num_outputs)
    model.accepts_loss_kwargs = False
    t = run.train
    arguments = TrainingArguments(
        out, num_train_epochs=t.epochs, per_device_train_batch_size=t.batch_size,
        per_device_eval_batch_size=64, learning_rate=t.learning_rate,
        weight_decay=t.weight_decay, warmup_steps=t.warmup_ratio, lr_scheduler_type="linear",
        max_grad_norm=t.max_grad_norm, seed=seed,
        eval_strategy="epoch", save_strategy="no", logging_strategy="no", report_to="none", use_cpu=True,
        disable_tqdm=True,
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
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out")
    parser.add_argument("overrides", nargs="*")
    args, extra = parser.parse_known_args()
    settings = [*WORK[args.work], *COMMON, f"model={args.model}", *args.overrides, *extra]
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
