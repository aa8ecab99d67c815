"""F1 of bertune and of transformers' run_ner recipe: same model, sentences, tags, settings, seeds.

    BERTUNE_DATA=DATA BERTUNE_M3E=M3E python benchmarks/tagging.py weibo --seeds 1 2 3 --out tagging.jsonl

For every seed three runs in turn: bertune with a linear head, bertune with a CRF, and the recipe (Trainer,
AutoModelForTokenClassification, DataCollatorForTokenClassification, a label at the first token of each word,
-100 elsewhere, seqeval's F1; `grouped` is the same with batches of similar length, its fastest mode). Each
keeps the epoch with the best dev F1; its test F1 is that of the same epoch. Seconds are those of training
alone.
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

NER = Path(os.environ.get("BERTUNE_DATA", "data")) / "ner"
M3E = os.environ.get("BERTUNE_M3E", "")


def files(folder: str, train: str, dev: str, test: str) -> list[str]:
    return [
        f"data.{name}={NER / folder / file}"
        for name, file in (("train", train), ("dev", dev), ("test", test))
    ]


WORK: dict[str, tuple[str, list[str]]] = {
    "weibo": (M3E, [*files("weibo", "train.json", "dev.json", "test.json"), "train.epochs=5"]),
    "resume": (M3E, [*files("resume", "train.json", "dev.json", "test.json"), "train.epochs=3"]),
    "msra": (M3E, [*files("msra", "train.txt", "dev.txt", "test.txt"), "train.epochs=3"]),
    "wnut17": (
        "minilm",
        [
            *files("wnut17", "wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated"),
            "train.epochs=3",
        ],
    ),
}
COMMON = [
    "train.batch_size=32",
    "train.learning_rate=5e-5",
    "train.head_learning_rate=null",  # one rate for all, as Trainer has it
    "train.warmup_ratio=0.1",
    "train.micro_batch_tokens=null",
    "data.max_length=512",
]


def ours(settings: list[str], seed: int, out: str) -> dict[str, float]:
    import bertune

    trained = bertune.train("tag", [*settings, f"seed={seed}", f"out={out}"], quiet=True)
    run = json.loads((trained.folder / "scores.json").read_text(encoding="utf-8"))["run"]
    return {
        **{split: trained.scores[split].main_value for split in ("dev", "test")},
        "seconds": run["train_seconds"],
    }


def theirs(settings: list[str], seed: int, out: str, *, grouped: bool) -> dict[str, float]:
    """The run_ner recipe on the sentences and tags of bertune; `grouped` is its fastest mode, less random."""
    from datasets import Dataset
    from seqeval.metrics import f1_score
    from transformers import (
        AutoModelForTokenClassification,
        AutoTokenizer,
        DataCollatorForTokenClassification,
        Trainer,
        TrainerCallback,
        TrainingArguments,
        set_seed,
    )

    from bertune.commands.train import prepare
    from bertune.data.entities import Span
    from bertune.data.tags import spans_to_tags
    from bertune.encoders.pretrained import locate_model
    from bertune.kernels.precision import choose_device, choose_precision
    from bertune.tasks.base.reading import read_splits

    run, task = prepare("tag", [*settings, f"seed={seed}"])
    splits = read_splits(task, run.data, run.seed, lambda _: None)
    folder = str(locate_model(run.model))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tags: list[str] = task.tags
    ids = {tag: n for n, tag in enumerate(tags)}

    def tags_of_words(example: Any) -> list[str]:
        starts = {start: n for n, (start, _) in reversed(list(enumerate(example.words)))}
        ends = {end: n + 1 for n, (_, end) in enumerate(example.words)}
        spans = [Span(starts[s.start], ends[s.end], s.label) for s in example.target]
        return spans_to_tags(spans, len(example.words), task.scheme)

    def dataset(examples: list[Any]) -> tuple[Any, list[list[str]]]:
        words = [[e.texts[0][a:b] for a, b in e.words] for e in examples]
        gold = [tags_of_words(e) for e in examples]
        encoded = tokenizer(words, is_split_into_words=True, truncation=True, max_length=run.data.max_length)
        labels = []
        for n, row in enumerate(gold):
            places = encoded.word_ids(n)
            labels.append(
                [
                    ids[row[p]] if p is not None and (i == 0 or places[i - 1] != p) else -100
                    for i, p in enumerate(places)
                ]
            )
        return Dataset.from_dict(
            {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"], "labels": labels}
        ), gold

    sets = {name: dataset(getattr(splits, name)) for name in ("train", "dev", "test")}
    golds = {name: sets[name][1] for name in ("dev", "test")}

    def f1(found: Any, name: str) -> float:
        """Words without a token are O; gold is never cut."""
        predicted = []
        for row, labels, gold in zip(found.predictions.argmax(-1), found.label_ids, golds[name], strict=True):
            said = [tags[p] for p, label in zip(row, labels, strict=True) if label != -100]
            predicted.append(said)
            if len(said) != len(gold):
                words_with = iter(said)
                kept = kept_words[name][len(predicted) - 1]
                predicted[-1] = [next(words_with) if n in kept else "O" for n in range(len(gold))]
        return float(f1_score(golds[name], predicted))

    kept_words = {}
    for name in ("dev", "test"):
        examples = getattr(splits, name)
        words = [[e.texts[0][a:b] for a, b in e.words] for e in examples]
        encoded = tokenizer(words, is_split_into_words=True, truncation=True, max_length=run.data.max_length)
        kept_words[name] = [{p for p in encoded.word_ids(n) if p is not None} for n in range(len(examples))]

    set_seed(seed)
    model = AutoModelForTokenClassification.from_pretrained(folder, num_labels=len(tags))
    model.accepts_loss_kwargs = False
    bf16 = choose_precision(run.train.precision, choose_device("cpu"))[0] == "bf16"
    t = run.train
    arguments = TrainingArguments(
        out, num_train_epochs=t.epochs, per_device_train_batch_size=t.batch_size,
        per_device_eval_batch_size=64, learning_rate=t.learning_rate,
        weight_decay=t.weight_decay, warmup_steps=t.warmup_ratio, lr_scheduler_type="linear",
        max_grad_norm=t.max_grad_norm, seed=seed,
        save_strategy="no", logging_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True,
        optim="adamw_torch_fused",
        bf16=bf16,
        train_sampling_strategy="group_by_length" if grouped else "random",
    )  # fmt: skip
    looks: list[dict[str, float]] = []
    spent = [0.0]

    class Look(TrainerCallback):
        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            began = time.perf_counter()
            looks.append({name: f1(scorer.predict(sets[name][0]), name) for name in ("dev", "test")})
            trainer.model.train()
            spent[0] += time.perf_counter() - began

    collate = DataCollatorForTokenClassification(tokenizer)
    trainer = Trainer(
        model,
        arguments,
        train_dataset=sets["train"][0],
        data_collator=collate,
        processing_class=tokenizer,
        callbacks=[Look()],
    )
    plain = TrainingArguments(
        out, per_device_eval_batch_size=64, report_to="none", use_cpu=True, disable_tqdm=True, bf16=bf16
    )
    scorer = Trainer(model, plain, data_collator=collate, processing_class=tokenizer)
    began = time.perf_counter()
    trainer.train()
    return {**max(looks, key=lambda look: look["dev"]), "seconds": time.perf_counter() - began - spent[0]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", choices=WORK)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument(
        "--tools",
        nargs="+",
        choices=("linear", "crf", "trainer", "grouped"),
        default=["linear", "crf", "trainer"],
    )
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out")
    parser.add_argument("overrides", nargs="*")
    args, extra = parser.parse_known_args()
    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    model, own = WORK[args.work]
    settings = [*COMMON, *own, f"model={model}", *args.overrides, *extra]
    rows: list[dict[str, Any]] = []
    for seed in args.seeds:
        row: dict[str, Any] = {"seed": seed}
        for tool in args.tools:
            with tempfile.TemporaryDirectory() as place:
                if tool in {"trainer", "grouped"}:
                    row[tool] = theirs(settings, seed, f"{place}/out", grouped=tool == "grouped")
                else:
                    row[tool] = ours([*settings, f"options.decoder={tool}"], seed, f"{place}/out")
        rows.append(row)
        print(args.work, json.dumps(row), flush=True)
    for tool in args.tools:
        means = {
            name: round(statistics.mean(row[tool][name] for row in rows), 4)
            for name in ("dev", "test", "seconds")
        }
        print(args.work, tool, json.dumps(means))
    if args.out:
        with Path(args.out).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"work": args.work, "settings": settings, "rows": rows}) + "\n")


if __name__ == "__main__":
    main()
