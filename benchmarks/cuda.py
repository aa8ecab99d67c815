"""One training step on a CUDA GPU: milliseconds and kernel launches, bertune and transformers' BERT in turn.

    python benchmarks/cuda.py [--lengths 25 100 250] [--batch 32] [--steps 30] [--rounds 3]

BERT-base with random weights, bf16, dropout on, AdamW (fused), clipping. Texts have random tokens; their
lengths spread evenly from half to one and a half times the mean. transformers: scaled_dot_product_attention,
autocast, batches padded to their longest row, sorted by length where `sorted` is said (its
`group_by_length`).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

VOCABULARY = 30522


def rows_of(mean: int, count: int) -> list[list[int]]:
    random = np.random.default_rng(mean)
    lengths = random.integers(mean // 2, mean + mean // 2 + 1, count)
    return [random.integers(1000, VOCABULARY, n).tolist() for n in lengths]


def ours(rows: list[list[int]], batch: int, folder: Path) -> Callable[[int], None]:
    from bertune.commands.train import prepare
    from bertune.data.dataset import EncodedDataset
    from bertune.training.build import build_model
    from bertune.training.launch import build_accelerator
    from bertune.training.rng import seed_everything
    from bertune.training.step import TrainStep
    from bertune.types import EncodedExample, Encoding, Example

    steps = {"max_steps": 10**6, "batch_size": batch, "micro_batch_tokens": None, "active_vocabulary": False}
    run, task = prepare({"task": "classify", "model": str(folder), "device": "cuda", "train": steps})
    task.fit([Example(("a",), "x"), Example(("b",), "y")], lambda _: None)
    accelerator, numerics, _ = build_accelerator(run, folder)
    seed_everything(1)
    built = build_model(run, task)
    built.model.encoder.set_numerics(numerics)
    dataset = EncodedDataset(
        [EncodedExample((Encoding(row, [0] * len(row)),), n % 2) for n, row in enumerate(rows)]
    )
    work = TrainStep(built.model.cuda().train(), task, dataset, run, accelerator)
    batches = work.batches()

    def step(_: int) -> None:
        work.model.train()
        work.step(next(batches))

    return step


def theirs(rows: list[list[int]], batch: int, folder: Path, *, by_length: bool) -> Callable[[int], None]:
    from transformers import BertForSequenceClassification

    model = BertForSequenceClassification.from_pretrained(folder, attn_implementation="sdpa").cuda().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, fused=True)
    order = np.random.default_rng(0).permutation(len(rows)).tolist()
    if by_length:
        order.sort(key=lambda n: len(rows[n]))
    starts = list(range(0, len(order), batch))

    def step(number: int) -> None:
        start = starts[(number * 7919) % len(starts)]
        chosen = [rows[n] for n in order[start : start + batch]]
        longest = max(map(len, chosen))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in chosen])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in chosen])
        labels = torch.tensor([n % 2 for n in range(len(chosen))])
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(ids.cuda(), attention_mask=mask.cuda(), labels=labels.cuda()).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def milliseconds(step: Callable[[int], None], steps: int, first: int) -> float:
    torch.cuda.synchronize()
    began = time.perf_counter()
    for number in range(first, first + steps):
        step(number)
    torch.cuda.synchronize()
    return (time.perf_counter() - began) / steps * 1000


def launches(step: Callable[[int], None]) -> tuple[int, float]:
    """Kernel launches of a step, and the milliseconds that the GPU is busy."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        step(5)
        torch.cuda.synchronize()
    kernels = [e for e in found.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    return len(kernels), sum(e.self_device_time_total for e in kernels) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lengths", type=int, nargs="+", default=[25, 100, 250])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, BERT-base, bf16, batch of {args.batch}"
    )
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{n}" for n in range(VOCABULARY - 5))]
        (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
        BertForSequenceClassification(BertConfig()).save_pretrained(folder)
        BertTokenizer.from_pretrained(place).save_pretrained(folder)
        for mean in args.lengths:
            rows = rows_of(mean, 64 * args.batch)
            tools = {
                "bertune": ours(rows, args.batch, folder),
                "transformers": theirs(rows, args.batch, folder, by_length=False),
                "transformers sorted": theirs(rows, args.batch, folder, by_length=True),
            }
            times: dict[str, list[float]] = {name: [] for name in tools}
            for step in tools.values():
                milliseconds(step, 10, 0)
            for round_ in range(args.rounds):
                for name, step in tools.items():
                    times[name].append(milliseconds(step, args.steps, 10 + round_ * args.steps))
            for name, step in tools.items():
                count, busy = launches(step)
                median = statistics.median(times[name])
                print(
                    f"{mean:>4} tokens  {name:<20} {median:7.2f} ms/step ({min(times[name]):.2f} to "
                    f"{max(times[name]):.2f})  {args.batch * 1000 / median:8.0f} rows/s  {count:>5} kernels, "
                    f"GPU busy {busy:.2f} ms"
                )
            del tools
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
