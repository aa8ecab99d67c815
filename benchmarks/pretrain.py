"""Continued pretraining by bertune and by transformers' run_mlm recipe: speed, memory, loss curve.

    export BERTUNE_DATA=DATA BERTUNE_M3E=M3E
    python benchmarks/pretrain.py speed --rows 32 --length 128 --rounds 3 --threads 1
    python benchmarks/pretrain.py speed --rows 8 --length 512 --rounds 3 --threads 1
    python benchmarks/pretrain.py curve --rows 16 --steps 300 --seeds 1 2 --threads 1 --out curve.jsonl

The model is m3e-small (4 layers of 512, 21,128 tokens) with a masked-LM head whose other weights were drawn
once; both tools begin with that folder. The texts are the files of `raw-zh`. Tools are measured in turn, each
time in a process of its own, the order reversed from round to round.

Tools: `bertune`, and transformers' Trainer twice, as run_mlm.py has it: group_texts (texts one after the
other, cut into full rows), DataCollatorForLanguageModeling, attention by sdpa. `default` touches no flag but
those that equal work needs; `best` has bf16 where the processor has units for it, and fused AdamW.

speed   Rows and tokens a second of `--steps` optimizer steps after `--warm` others, from the end of the last
        of these to the end of the last step: making of batches, masking, forward, backward, clipping,
        optimizer. Reading and tokenizing are not in it. Peak resident memory of the process until then.
        Ratios above 1 speak for bertune. `tokens_per_cpu_s` counts the processor's seconds, of all threads:
        on a machine that others use too it is the steadier figure.
curve   Loss on dev rows that were masked once, the same for both, along training on the same rows: those of
        group_texts, which bertune gets in place of its own. 15 %, of them 80 % [MASK], 10 % another token;
        AdamW, linear schedule with 10 % warm-up, weight decay 0.01, clipping at 1, bf16 for both. What is
        masked and the order of rows are each tool's own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from peers import Marks, as_the_command_line, has_bf16, machine

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

DATA = Path(os.environ.get("BERTUNE_DATA", "data"))
TEXTS = [DATA / "raw-zh" / name for name in (
    "CLUECorpusSmall_bert_sampled.txt", "wiki.zh-cn.txt", "classical_modern_target_120k.txt",
)]  # fmt: skip
DEV_ROWS = 256
CURVE_PEER = "best"
SAME_ROWS = ["options.packing=joined", "options.masking=tokens"]
"""Texts one after the other, as group_texts has them."""
Result = dict[str, Any]


@dataclass(frozen=True)
class Spec:
    """What one process has to do."""

    what: str
    tool: str = "bertune"
    folder: str = ""
    """Where the model and the rows are; `what=make` writes them there."""
    model: str = ""
    rows: int = 32
    length: int = 128
    warm: int = 3
    steps: int = 30
    rate: float = 2e-4
    seed: int = 1
    looks: Sequence[int] = ()
    """Steps after which the dev loss is taken."""
    overrides: Sequence[str] = field(default_factory=list)


class Clock(Marks):
    """Also the seconds that all threads of the process have computed at the end of every step."""

    def __init__(self) -> None:
        super().__init__()
        self.cpu: list[float] = []

    def add(self, rows: Sequence[int] = (), tokens: int = 0) -> None:
        super().add(rows, tokens)
        self.cpu.append(time.process_time())

    def speed(self, spec: Spec) -> Result:
        seconds, tokens = self.seconds(spec.warm), sum(self.tokens[spec.warm :])
        return {
            "rows_per_s": spec.steps * spec.rows / seconds, "tokens_per_s": tokens / seconds,
            "tokens_per_cpu_s": tokens / (self.cpu[-1] - self.cpu[spec.warm - 1]),
            "tokens_per_row": tokens / spec.steps / spec.rows, "peak_gb": self.peaks[-1],
        }  # fmt: skip


# what both begin with


def make(spec: Spec) -> Result:
    """Write the model with its head, rows of group_texts, and dev rows that are masked."""
    import numpy as np
    import torch
    from transformers import AutoModelForMaskedLM, AutoTokenizer, DataCollatorForLanguageModeling

    folder = Path(spec.folder)
    tokenizer = AutoTokenizer.from_pretrained(spec.model)
    torch.manual_seed(0)
    AutoModelForMaskedLM.from_pretrained(spec.model).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    rows = grouped(tokenizer, spec.length)
    order = np.random.default_rng(0).permutation(len(rows))
    np.save(folder / "train.npy", rows[np.sort(order[DEV_ROWS:])])
    torch.manual_seed(0)
    masked = DataCollatorForLanguageModeling(tokenizer)(for_collator(rows[order[:DEV_ROWS]], tokenizer))
    np.savez(folder / "dev.npz", **{name: masked[name].numpy() for name in ("input_ids", "labels")})
    return {"rows": len(rows) - DEV_ROWS, "masked": int((masked["labels"] >= 0).sum())}


def grouped(tokenizer: Any, length: int) -> Any:
    """Return group_texts of run_mlm.py: all texts one after the other, in rows of one length."""
    import numpy as np

    texts = [line for file in TEXTS for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    ids = [token for row in tokenizer(texts)["input_ids"] for token in row]
    return np.array(ids[: len(ids) // length * length], np.int64).reshape(-1, length)


def for_collator(rows: Any, tokenizer: Any) -> list[Result]:
    """Return rows with the special tokens marked once, as run_mlm.py has them."""
    import numpy as np

    special = np.isin(rows, tokenizer.all_special_ids).astype(int)
    return [
        {"input_ids": row, "special_tokens_mask": mask}
        for row, mask in zip(rows.tolist(), special.tolist(), strict=True)
    ]


def read_dev(spec: Spec) -> tuple[Any, Any]:
    import numpy as np
    import torch

    dev = np.load(Path(spec.folder) / "dev.npz")
    return torch.from_numpy(dev["input_ids"]), torch.from_numpy(dev["labels"])


# bertune


def train_ours(spec: Spec) -> Result:
    import bertune
    from bertune.training.step import TrainStep

    marks, losses = Clock(), {}
    step, begin = TrainStep.step, TrainStep.__init__

    def timed(train_step: TrainStep, rows: list[int]) -> None:
        if spec.what == "curve" and not marks.times and 0 in spec.looks:
            losses[0] = our_dev_loss(train_step, spec)
        step(train_step, rows)
        marks.add(rows, int(train_step.dataset.lengths[rows].sum()))
        if len(marks.times) in spec.looks:
            losses[len(marks.times)] = our_dev_loss(train_step, spec)

    def begun(train_step: TrainStep, model: Any, task: Any, dataset: Any, *more: Any, **named: Any) -> None:
        begin(train_step, model, task, given_rows(spec) if spec.what == "curve" else dataset, *more, **named)

    with (
        tempfile.TemporaryDirectory() as place,
        mock.patch.object(TrainStep, "step", timed),
        mock.patch.object(TrainStep, "__init__", begun),
    ):
        bertune.train("pretrain", our_settings(spec, place), quiet=True)
    if spec.what == "curve":
        return {"dev_loss": losses}
    return marks.speed(spec)


def our_settings(spec: Spec, place: str) -> list[str]:
    """Few dev rows, since training ends with a look at them that is not measured."""
    dev = Path(place) / "dev.txt"
    lines = TEXTS[0].read_text(encoding="utf-8").splitlines()[:200]
    dev.write_text("\n".join(lines), encoding="utf-8")
    train = [dev] if spec.what == "curve" else TEXTS
    return [
        f"model={spec.folder}/model", f"data.train=[{','.join(map(str, train))}]", f"data.dev={dev}",
        f"data.max_length={spec.length}", f"train.batch_size={spec.rows}",
        f"train.max_steps={spec.warm + spec.steps}", f"train.learning_rate={spec.rate}",
        "train.head_learning_rate=null", "train.warmup_ratio=0.1", "train.eval_every=end",
        "train.checkpoint_every=never", "device=cpu", f"seed={spec.seed}", f"out={place}/out", *SAME_ROWS,
        *spec.overrides,
    ]  # fmt: skip


def given_rows(spec: Spec) -> Any:
    """Return the rows of group_texts as bertune has rows."""
    import numpy as np

    from bertune.data.dataset import EncodedDataset
    from bertune.types import EncodedExample, Encoding

    rows = np.load(Path(spec.folder) / "train.npy")
    return EncodedDataset([EncodedExample((Encoding(row, np.zeros_like(row)),), None) for row in rows])


def our_dev_loss(train_step: Any, spec: Spec) -> float:
    import torch

    from bertune.types import Batch, Ragged

    ids, labels = read_dev(spec)
    model, total = train_step.model, 0.0
    model.eval()
    with torch.no_grad():
        for start in range(0, len(ids), 32):
            some, right = ids[start : start + 32], labels[start : start + 32].flatten()
            lengths = (spec.length,) * len(some)
            offsets = torch.arange(len(some) + 1) * spec.length
            places = (right >= 0).nonzero().flatten()
            ragged = Ragged(some.flatten(), torch.zeros_like(some).flatten(), offsets, lengths)
            batch = Batch(ragged, torch.stack([places, right[places]]), tuple(range(len(some))))
            total += float(train_step.task.loss(model(batch), batch))
    model.train()
    return total / int((labels >= 0).sum())


# transformers' run_mlm


def train_theirs(spec: Spec) -> Result:
    """The recipe of run_mlm.py on rows that are grouped already."""
    import numpy as np
    from transformers import (
        AutoModelForMaskedLM,
        AutoTokenizer,
        DataCollatorForLanguageModeling,
        Trainer,
        TrainerCallback,
        TrainingArguments,
        set_seed,
    )

    set_seed(spec.seed)
    model = AutoModelForMaskedLM.from_pretrained(f"{spec.folder}/model")
    model.accepts_loss_kwargs = False
    tokenizer = AutoTokenizer.from_pretrained(f"{spec.folder}/model")
    rows = np.load(Path(spec.folder) / "train.npy")
    best = {"bf16": has_bf16(), "optim": "adamw_torch_fused"} if spec.tool == "best" else {}
    arguments = TrainingArguments(
        tempfile.mkdtemp(), max_steps=spec.warm + spec.steps, per_device_train_batch_size=spec.rows,
        learning_rate=spec.rate, weight_decay=0.01, warmup_steps=0.1, lr_scheduler_type="linear",
        max_grad_norm=1.0, seed=spec.seed, use_cpu=True, save_strategy="no", logging_strategy="no",
        report_to="none", disable_tqdm=True, **best,
    )  # fmt: skip
    marks, losses = Clock(), {}

    class Watch(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            if 0 in spec.looks:
                losses[0] = their_dev_loss(model, spec)

        def on_step_end(self, *_: Any, **__: Any) -> None:
            marks.add(tokens=spec.rows * spec.length)
            if len(marks.times) in spec.looks:
                losses[len(marks.times)] = their_dev_loss(model, spec)

    Trainer(
        model, arguments, train_dataset=for_collator(rows, tokenizer),
        data_collator=DataCollatorForLanguageModeling(tokenizer), processing_class=tokenizer,
        callbacks=[Watch()],
    ).train()  # fmt: skip
    if spec.what == "curve":
        return {"dev_loss": losses}
    return marks.speed(spec)


def their_dev_loss(model: Any, spec: Spec) -> float:
    import torch

    ids, labels = read_dev(spec)
    total = 0.0
    model.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=has_bf16()):
        for start in range(0, len(ids), 32):
            right = labels[start : start + 32]
            states = model.base_model(ids[start : start + 32]).last_hidden_state[right >= 0]
            logits = model.cls(states).float()
            total += float(torch.nn.functional.cross_entropy(logits, right[right >= 0], reduction="sum"))
    model.train()
    return total / int((labels >= 0).sum())


# the parent


def measure(spec: Spec, threads: int | None) -> Result:
    """Take one measurement in a process of its own."""
    environment = dict(os.environ)
    if threads:
        environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    command = [sys.executable, __file__, "--child", json.dumps(asdict(spec))]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{spec}\n{done.stderr[-3000:]}\nexit code {done.returncode}")
    found: Result = json.loads(done.stdout.splitlines()[-1])
    return found


def child(words: str) -> None:
    spec = Spec(**json.loads(words))
    works: dict[str, Callable[[Spec], Result]] = {"make": make, "machine": lambda _: machine(None)}
    if work := works.get(spec.what):
        print(json.dumps(work(spec)))
        return
    with tempfile.TemporaryDirectory() as place:
        tempfile.tempdir = place  # where the Trainer's empty output folders go
        ours = spec.tool == "bertune"
        print(json.dumps(as_the_command_line(lambda: train_ours(spec)) if ours else train_theirs(spec)))


def rounds_of(args: argparse.Namespace, shared: Result) -> Iterator[Result]:
    for number in range(1, args.rounds + 1):
        one = {"what": "speed", "round": number, "rows": args.rows, "length": args.length}
        for tool in args.tools if number % 2 else reversed(args.tools):
            found = measure(Spec("speed", tool, seed=number, **shared), args.threads)
            one[tool] = found
            figures = ", ".join(f"{name} {value:.2f}" for name, value in found.items())
            print(f"round {number} {tool}: {figures}", flush=True)
        yield one


def tell_speed(found: list[Result], tools: Sequence[str]) -> None:
    def median(tool: str, figure: str) -> float:
        return statistics.median(one[tool][figure] for one in found)

    def ratio(tool: str, figure: str) -> str:
        ratios = [one["bertune"][figure] / one[tool][figure] for one in found]
        return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"

    print(
        "| tool | rows/s | tokens/s | tokens a second of the processor | peak GB "
        "| bertune, by the clock | by the processor | peak / bertune's |\n" + "|---" * 8 + "|"
    )
    for tool in tools:
        rows, *others = (median(tool, f) for f in ("rows_per_s", "tokens_per_s", "tokens_per_cpu_s"))
        peak, memory = median(tool, "peak_gb"), median(tool, "peak_gb") / median("bertune", "peak_gb")
        print(
            f"| {tool} | {rows:.2f} | {' | '.join(f'{figure:.0f}' for figure in others)} | {peak:.2f} "
            f"| {ratio(tool, 'tokens_per_s')} | {ratio(tool, 'tokens_per_cpu_s')} | {memory:.2f} |"
        )


def curves_of(args: argparse.Namespace, shared: Result) -> Iterator[Result]:
    last = args.warm + args.steps
    looks = sorted({*range(0, last, max(1, args.look_every)), last})
    for number, seed in enumerate(args.seeds):
        for tool in args.tools if number % 2 == 0 else reversed(args.tools):
            found = measure(Spec("curve", tool, seed=seed, looks=looks, **shared), args.threads)
            one = {"what": "curve", "seed": seed, "tool": tool, **found}
            print(json.dumps(one), flush=True)
            yield one


def tell_curves(found: list[Result]) -> None:
    """A column a run; steps are text in JSON."""
    print("| step |", " | ".join(f"{one['tool']}, seed {one['seed']}" for one in found), "|")
    print("|---" * (1 + len(found)) + "|")
    for step in found[0]["dev_loss"]:
        print(f"| {step} |", " | ".join(f"{one['dev_loss'][step]:.4f}" for one in found), "|")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=("speed", "curve"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--m3e", default=os.environ.get("BERTUNE_M3E", ""))
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--warm", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rate", type=float, default=2e-4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--look-every", type=int, default=50)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--tools", nargs="+", help="bertune, best, default")
    parser.add_argument("--out", help="file for a JSON line a measurement")
    parser.add_argument("--folder", help="keep model and rows here, and use those that are there")
    parser.add_argument("overrides", nargs="*", help="settings of bertune")
    args, extra = parser.parse_known_args()
    if args.child:
        child(args.child)
        return
    if args.what == "curve":
        args.warm, args.tools = 0, args.tools or ["bertune", CURVE_PEER]
    args.tools = args.tools or ["bertune", "best", "default"]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(args.folder or place)
        folder.mkdir(parents=True, exist_ok=True)
        given = {"rows": args.rows, "length": args.length, "warm": args.warm, "steps": args.steps}
        shared = {"folder": str(folder), "rate": args.rate, "overrides": [*args.overrides, *extra], **given}
        print(json.dumps(measure(Spec("machine"), args.threads)), flush=True)
        if not (folder / "dev.npz").exists():
            made = measure(Spec("make", folder=str(folder), model=args.m3e, length=args.length), args.threads)
            print(json.dumps(made), flush=True)
        found = []
        for one in (rounds_of if args.what == "speed" else curves_of)(args, shared):
            found.append(one)
            if args.out:
                with Path(args.out).open("a", encoding="utf-8") as file:
                    file.write(json.dumps({**one, "rate": args.rate, "threads": args.threads}) + "\n")
        if args.what == "curve":
            tell_curves(found)
        elif "bertune" in args.tools:
            tell_speed(found, args.tools)


if __name__ == "__main__":
    main()
