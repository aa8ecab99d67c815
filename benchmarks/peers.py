"""One measurement of one tool, in its own process. `speed.py` starts it; the last line on stdout is JSON.

    python benchmarks/peers.py '{"what": "train", "tool": "best", "settings": ["classify", "data.train=...",
    ...], "steps": 30}'

Tools: `bertune`, and transformers' Trainer twice. `default` touches no flag but those that equal work needs;
`best` is the fastest that its own flags give: bf16 where the processor has units for it, batches of similar
length, fused AdamW, large evaluation batches, no gradient checkpointing.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

Result = dict[str, Any]


@dataclass(frozen=True)
class Spec:
    """What to measure."""

    what: str
    tool: str = "bertune"
    settings: Sequence[str] = ()
    """A task and overrides, as `bertune train` takes them."""
    precision: str = "auto"
    """auto, or fp32 for everybody."""
    warm: int = 3
    """First steps, which are not counted."""
    steps: int = 30
    """Steps after them, which are."""
    take: int | None = None
    """Measure only so many rows of those steps, spread evenly over their lengths, if a peer is too slow."""
    rows: int = 1000
    """Dev rows to predict."""
    eval_every: int = 50
    """Steps between two looks at the dev set."""
    folder: str = ""
    """What `bertune train` has written; of `model`: the folder to make."""


class Marks:
    """Clock and peak memory at the end of every step.

    A step lasts from the end of the one before it to its own end, so that for everybody the making of its
    batch is part of it.
    """

    def __init__(self) -> None:
        self.times: list[float] = []
        self.peaks: list[float] = []
        self.rows: list[list[int]] = []
        self.tokens: list[int] = []

    def add(self, rows: Sequence[int] = (), tokens: int = 0) -> None:
        from bertune.memory import peak_memory_gb

        self.times.append(time.perf_counter())
        self.peaks.append(peak_memory_gb("cpu"))
        self.rows.append(list(rows))
        self.tokens.append(tokens)

    def seconds(self, warm: int) -> float:
        return self.times[-1] - self.times[warm - 1]


def speed(seconds: float, rows: Sequence[int], tokens: int) -> Result:
    """`which` identifies the rows: it is the same for tools that saw the same rows, in any order."""
    which = hashlib.sha256(json.dumps(sorted(rows)).encode()).hexdigest()[:12]
    return {
        "rows_per_s": len(rows) / seconds, "tokens_per_s": tokens / seconds, "seconds": seconds,
        "rows": len(rows), "tokens": tokens, "which": which,
    }  # fmt: skip


# bertune


def as_the_command_line(work: Callable[[], Result]) -> Result:
    """Run with the environment that the command line gives itself, before anything loads torch."""
    import bertune.cli
    import bertune.cli.app

    if "torch" in sys.modules:  # its threads would have read their settings already
        raise RuntimeError("bertune's command line loads torch before it sets its environment")
    found: list[Result] = []
    with mock.patch.object(bertune.cli.app, "app", lambda: found.append(work())):
        bertune.cli.main()
    return found[0]


def our_settings(spec: Spec, out: str, **more: Any) -> list[str]:
    own = [f"train.precision={spec.precision}", "device=cpu", f"out={out}"]
    return [*spec.settings[1:], *own, *(f"{name.replace('__', '.')}={value}" for name, value in more.items())]


def few_dev_rows(spec: Spec, folder: str) -> str:
    """Training ends with a look at the dev set: here that is not measured, and need not take long."""
    file = Path(next(s for s in reversed(spec.settings) if s.startswith("data.dev=")).partition("=")[2])
    short = Path(folder) / f"dev{file.suffix}"
    with file.open(encoding="utf-8") as lines:
        short.write_text("".join(line for line, _ in zip(lines, range(33), strict=False)), encoding="utf-8")
    return str(short)


def train_ours(spec: Spec) -> Result:
    import bertune
    from bertune.training.step import TrainStep

    marks, step = Marks(), TrainStep.step

    def timed(train_step: TrainStep, rows: list[int]) -> None:
        step(train_step, rows)
        marks.add(rows, int(train_step.dataset.lengths[rows].sum()))

    with tempfile.TemporaryDirectory() as place, mock.patch.object(TrainStep, "step", timed):
        total = spec.warm + spec.steps
        settings = our_settings(
            spec, f"{place}/out", train__max_steps=total, data__dev=few_dev_rows(spec, place)
        )
        bertune.train(spec.settings[0], settings, quiet=True)
    if spec.what == "memory":
        from bertune.memory import peak_memory_gb

        return {
            "peak_gb": marks.peaks[-1], "with_saving_gb": peak_memory_gb("cpu"), "steps": spec.steps,
            "tokens": sum(marks.tokens), "longest_batch": max(marks.tokens),
        }  # fmt: skip
    measured = [row for rows in marks.rows[spec.warm :] for row in rows]
    return {
        **speed(marks.seconds(spec.warm), measured, sum(marks.tokens[spec.warm :])),
        "peak_gb": marks.peaks[-1],
    }


def predict_ours(spec: Spec) -> Result:
    import bertune

    examples = dev_examples(spec)
    model = bertune.load(spec.folder, device="cpu", precision=spec.precision)
    model.predict(inputs(examples[:32]))
    began = time.perf_counter()
    found = model.predict(inputs(examples))
    seconds = time.perf_counter() - began
    return predicted(seconds, [str(p.value) for p in found], examples)


def reach_ours(spec: Spec) -> Result:
    """Every look at the dev set with the time until its result was known, saved checkpoints included."""
    import bertune

    with tempfile.TemporaryDirectory() as place:
        settings = our_settings(spec, f"{place}/out", train__eval_every=spec.eval_every)
        bertune.train(spec.settings[0], settings, quiet=True)
        events = [
            json.loads(line)
            for line in Path(place, "out", "history.jsonl").read_text(encoding="utf-8").splitlines()
        ]
    return {
        "dev": [
            {name: e[name] for name in ("step", "accuracy", "seconds")} for e in events if e["event"] == "dev"
        ]
    }


# transformers' Trainer


@dataclass(frozen=True)
class Work:
    """The run as bertune understands it, and its rows as the Trainer takes them."""

    spec: Spec
    run: Any
    task: Any
    tokenizer: Any
    train: list[Result]
    dev: list[Result]


def read_work(spec: Spec) -> Work:
    """Read the very rows that bertune trains on."""
    from transformers import AutoTokenizer

    from bertune.commands.train import prepare
    from bertune.encoders.pretrained import locate_model
    from bertune.tasks.base.reading import read_splits

    run, task = prepare(spec.settings[0], spec.settings[1:])
    splits = read_splits(task, run.data, run.seed, lambda _: None)
    tokenizer = AutoTokenizer.from_pretrained(locate_model(run.model))

    def encoded(examples: Sequence[Any]) -> list[Result]:
        texts = map(list, zip(*[e.texts for e in examples], strict=True))
        columns = tokenizer(*texts, truncation=True, max_length=run.data.max_length)
        targets = [task.encode_target(e.target) for e in examples]
        return [
            {**{name: columns[name][n] for name in columns}, "labels": targets[n]}
            for n in range(len(examples))
        ]

    return Work(
        spec, run, task, tokenizer, encoded(splits.train), encoded(splits.dev) if spec.what == "reach" else []
    )


def has_bf16() -> bool:
    import torch

    from bertune.kernels.precision import has_fast_bf16

    return has_fast_bf16(torch.device("cpu"))


def fastest_flags(spec: Spec) -> Result:
    bf16 = spec.precision != "fp32" and has_bf16()
    return {
        "bf16": bf16, "train_sampling_strategy": "group_by_length", "optim": "adamw_torch_fused",
        "per_device_eval_batch_size": 64,
    }  # fmt: skip


def build_trainer(work: Work, train: list[Result], base: type | None = None, **more: Any) -> Any:
    """The run_glue recipe with the settings of the run."""
    from transformers import (
        AutoModelForSequenceClassification,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    from bertune.encoders.pretrained import locate_model

    t = work.run.train
    set_seed(work.run.seed)
    model = AutoModelForSequenceClassification.from_pretrained(
        locate_model(work.run.model), num_labels=work.task.num_outputs
    )
    model.accepts_loss_kwargs = False  # or transformers 5 scales the loss of encoders wrongly
    flags: Result = {
        "num_train_epochs": t.epochs, "per_device_train_batch_size": t.batch_size,
        "learning_rate": t.learning_rate,
        "weight_decay": t.weight_decay, "warmup_steps": t.warmup_ratio, "max_grad_norm": t.max_grad_norm,
        "seed": work.run.seed,
        "use_cpu": True, "save_strategy": "no", "logging_strategy": "no", "report_to": "none",
        "disable_tqdm": True,
    }  # fmt: skip
    if work.spec.tool == "best":
        flags |= fastest_flags(work.spec)
    arguments = TrainingArguments(tempfile.mkdtemp(), **flags | more)
    return (base or Trainer)(
        model, arguments, train_dataset=train, eval_dataset=work.dev or None, compute_metrics=accuracy,
        data_collator=DataCollatorWithPadding(work.tokenizer), processing_class=work.tokenizer,
    )  # fmt: skip


def accuracy(found: Any) -> dict[str, float]:
    return {"accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())}


def watched(trainer: Any) -> Marks:
    """Mark the end of every step, and train."""
    from transformers import TrainerCallback

    marks = Marks()

    class Watch(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            marks.add()

    trainer.add_callback(Watch())
    trainer.train()
    return marks


def train_theirs(spec: Spec) -> Result:
    if spec.what == "memory":
        return memory_theirs(spec)
    work = read_work(spec)
    warm, measured = same_rows(work)
    train = [work.train[row] for row in [*warm, *measured]]
    marks = watched(build_trainer(work, train, warming_up(len(warm)), num_train_epochs=1))
    expected = spec.warm - (-len(measured) // work.run.train.batch_size)
    if len(marks.times) != expected:
        raise RuntimeError(f"{len(marks.times)} steps, expected {expected}")
    tokens = sum(len(work.train[row]["input_ids"]) for row in measured)
    return {**speed(marks.seconds(spec.warm), measured, tokens), "peak_gb": marks.peaks[-1]}


def same_rows(work: Work) -> tuple[list[int], list[int]]:
    """Return the rows of bertune's first steps, and those of the steps after them, which are measured.

    bertune reads the whole data set and stops after some steps, the Trainer gets just the rows of these
    steps: cut short in a pass over all rows, group_by_length would have had the longest ones first.
    """
    from bertune.data.batching import epoch_order

    spec, size = work.spec, work.run.train.batch_size
    order = epoch_order(len(work.train), work.run.seed, 0).tolist()
    warm, total = spec.warm * size, (spec.warm + spec.steps) * size
    if total > len(order):
        raise ValueError(
            f"{spec.warm} + {spec.steps} steps of {size} rows are more than one pass over {len(order)} rows"
        )
    measured = order[warm:total]
    if spec.take is not None and spec.take < len(measured):
        measured.sort(key=lambda row: len(work.train[row]["input_ids"]))
        measured = [measured[int((n + 0.5) * len(measured) / spec.take)] for n in range(spec.take)]
    return order[:warm], measured


def warming_up(first: int) -> type:
    """Return a Trainer that sees the first rows first, then the others in the order of its own sampler."""
    from torch.utils.data import Sampler
    from transformers import Trainer

    class Then(Sampler):
        def __init__(self, rest: Any) -> None:
            self.rest = rest

        def __iter__(self) -> Any:
            yield from range(first)
            yield from (first + row for row in self.rest)

        def __len__(self) -> int:
            return first + len(self.rest)

    class WarmTrainer(Trainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return Then(super()._get_train_sampler((train_dataset or self.train_dataset)[first:]))

    return WarmTrainer


def memory_theirs(spec: Spec) -> Result:
    """Peak of the first steps over all rows; group_by_length puts the longest row into the first batch."""
    work = read_work(spec)
    marks = watched(build_trainer(work, work.train, max_steps=spec.steps))
    distinct = len({token for row in work.train for token in row["input_ids"]})
    return {
        "peak_gb": marks.peaks[-1],
        "steps": spec.steps,
        "distinct_tokens": distinct,
        "rows": len(work.train),
    }


def reach_theirs(spec: Spec) -> Result:
    """The dev accuracy after every epoch; the clock starts when rows are encoded, as in bertune's history."""
    from transformers import TrainerCallback

    work = read_work(spec)
    looks: list[Result] = []
    began = time.perf_counter()

    class Look(TrainerCallback):
        def on_evaluate(self, _: Any, state: Any, __: Any, metrics: dict[str, float], **___: Any) -> None:
            seconds = round(time.perf_counter() - began, 3)
            looks.append(
                {"step": state.global_step, "accuracy": metrics["eval_accuracy"], "seconds": seconds}
            )

    trainer = build_trainer(work, work.train, eval_strategy="epoch")
    trainer.add_callback(Look())
    trainer.train()
    return {"dev": looks}


def predict_theirs(spec: Spec) -> Result:
    """The folder that bertune has written, opened by transformers: the same weights."""
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    from bertune.commands.train import prepare

    best = spec.tool == "best"
    examples = dev_examples(spec)
    max_length = prepare(spec.settings[0], spec.settings[1:])[0].data.max_length
    tokenizer = AutoTokenizer.from_pretrained(spec.folder)
    model = AutoModelForSequenceClassification.from_pretrained(spec.folder)
    flags = fastest_flags(spec) if best else {}
    if best:
        # Its own grouping returns the rows in another order, so rows are sorted here. Weights in bf16 need no
        # casts.
        flags |= {"train_sampling_strategy": "random", "bf16_full_eval": flags["bf16"]}
    arguments = TrainingArguments(
        tempfile.mkdtemp(), use_cpu=True, report_to="none", disable_tqdm=True, **flags
    )
    trainer = Trainer(
        model, arguments, data_collator=DataCollatorWithPadding(tokenizer), processing_class=tokenizer
    )

    def predict(texts: list[Any]) -> list[str]:
        first, second = zip(
            *[text if isinstance(text, tuple) else (text, None) for text in texts], strict=True
        )
        pair = [list(second)] if second[0] is not None else []
        columns = tokenizer(list(first), *pair, truncation=True, max_length=max_length)
        rows = [{name: columns[name][n] for name in columns} for n in range(len(texts))]
        order = (
            sorted(range(len(rows)), key=lambda n: -len(rows[n]["input_ids"]))
            if best
            else list(range(len(rows)))
        )
        outputs = trainer.predict([rows[n] for n in order]).predictions.argmax(-1)
        labels = {
            place: model.config.id2label[int(label)] for place, label in zip(order, outputs, strict=True)
        }
        return [labels[n] for n in range(len(rows))]

    predict(inputs(examples[:32]))
    began = time.perf_counter()
    found = predict(inputs(examples))
    return predicted(time.perf_counter() - began, found, examples)


def dev_examples(spec: Spec) -> list[Any]:
    from bertune.commands.train import prepare
    from bertune.data.rows import resolve_files
    from bertune.tasks.base.reading import read_examples

    run, task = prepare(spec.settings[0], spec.settings[1:])
    return read_examples(resolve_files(run.data.dev, "dev"), task, run.data, lambda _: None)[: spec.rows]


def inputs(examples: Sequence[Any]) -> list[Any]:
    return [e.texts[0] if len(e.texts) == 1 else e.texts for e in examples]


def predicted(seconds: float, labels: list[str], examples: Sequence[Any]) -> Result:
    right = sum(label == str(e.target) for label, e in zip(labels, examples, strict=True))
    said = hashlib.sha256("\n".join(labels).encode()).hexdigest()[:12]
    return {
        "rows_per_s": len(examples) / seconds,
        "seconds": seconds,
        "rows": len(examples),
        "accuracy": right / len(examples),
        "said": said,
    }


# What the measurements need


SHAPES: dict[str, dict[str, Any]] = {
    "bert-base": {"model_type": "bert", "vocab_size": 21128},
    # The padding id is that of the tokenizer it is given here.
    "xlmr": {
        "model_type": "xlm-roberta",
        "vocab_size": 250002,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "pad_token_id": 0,
    },
}
"""Encoders with random weights: what differs from the base size of transformers' configurations."""


def make_model(spec: Spec) -> Result:
    """Write an encoder with random weights and the tokenizer of another; settings: its shape, that folder."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    shape, source = spec.settings
    torch.manual_seed(1)
    tokenizer = AutoTokenizer.from_pretrained(source)
    config = AutoConfig.for_model(**SHAPES[shape])
    part = Path(f"{spec.folder}.part")
    AutoModel.from_config(config).save_pretrained(part)
    tokenizer.save_pretrained(part)
    part.rename(spec.folder)
    return {"folder": spec.folder}


def make_trained(spec: Spec) -> Result:
    """Write the folder that predictions are measured with; brief training is enough for speed."""
    import bertune

    with tempfile.TemporaryDirectory() as place:
        settings = our_settings(spec, spec.folder, data__dev=few_dev_rows(spec, place))
        bertune.train(spec.settings[0], settings, quiet=True)
    return {"folder": spec.folder}


def machine(_: Spec) -> Result:
    import importlib.metadata
    import os
    import platform

    import torch

    listed = Path("/proc/cpuinfo")
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.exists() else []
    name = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.processor(),
    )
    abilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return {
        "cpu": name, "cores": os.cpu_count(), "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{ability: bool(abilities.get(ability)) for ability in ("amx_bf16", "avx512_bf16")},
        **{
            package: importlib.metadata.version(package)
            for package in ("bertune", "torch", "transformers", "accelerate")
        },
    }  # fmt: skip


WHAT: dict[str, tuple[Callable[[Spec], Result], Callable[[Spec], Result]]] = {
    "train": (train_ours, train_theirs),
    "memory": (train_ours, train_theirs),
    "predict": (predict_ours, predict_theirs),
    "reach": (reach_ours, reach_theirs),
    "trained": (make_trained, make_trained),
    "model": (make_model, make_model),
    "machine": (machine, machine),
}


def main() -> None:
    spec = Spec(**json.loads(sys.argv[1]))
    ours, theirs = WHAT[spec.what]
    with tempfile.TemporaryDirectory() as place:
        tempfile.tempdir = place  # where the Trainer's empty output folders go
        result = as_the_command_line(lambda: ours(spec)) if spec.tool == "bertune" else theirs(spec)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
