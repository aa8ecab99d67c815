"""Rows of several real processes: what each receives, what flows back, and that the loss is that of one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

PROGRAM = """
import itertools
import sys
import torch
import torch.distributed as dist
from bertune.config.schema import DataConfig
from bertune.data.dataset import EncodedDataset
from bertune.distributed import all_gather, num_processes
from bertune.heads.sentence import SentenceOutput
from bertune.tasks.embed import Embed, EmbedOptions
from bertune.types import EncodedExample, Encoding

rank, world, place = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)  # or sums in another order differ by more than the tolerance
if world > 1:
    dist.init_process_group("gloo", init_method=f"file://{place}/meet-{world}", rank=rank, world_size=world)
assert num_processes() == world

def share(x, cuts):
    return x[cuts[rank]:cuts[rank + 1]]

def total(x):
    x = x.detach().clone()
    if world > 1:
        dist.all_reduce(x)
    return x

found = {}

# What each process receives, and what flows back. Each computes something else from the joined rows; one of
# three gives none.
cuts = {1: [0, 6], 2: [0, 2, 6], 3: [0, 5, 5, 6]}[world]
random = torch.Generator().manual_seed(1)
whole, flat = torch.randn(6, 4, 3, generator=random), torch.randn(6, generator=random)
weights = torch.randn(3, 6, 4, 3, generator=random)
for name, x in (("matrices", whole), ("numbers", flat)):
    own = share(x, cuts).clone().requires_grad_()
    joined = all_gather(own)
    mine = range(3) if world == 1 else [rank] if world == 3 else [[0, 2], [1]][rank]
    sum((joined ** 2 * (weights[n] if x.ndim > 1 else weights[n, :, 0, 0])).sum() for n in mine).backward()
    found[name] = joined.detach()
    found["gradient of " + name] = all_gather(own.grad)
found["integers"] = all_gather(share(torch.arange(12).view(6, 2), cuts))
found["flags"] = all_gather(share(torch.arange(6) % 2 == 0, cuts))

# The loss of embed on texts that repeat within and between processes; with passes of single texts, too.
texts = torch.randn(11, 6, generator=random)
layer = torch.randn(8, 6, generator=random)
three = [[0, 1, 9], [2, 3, 10], [0, 4, 9], [5, 3, 1], [6, 7, 9], [8, 2, 10], [7, 6, 3], [6, 6, 4]]

def pieces(row):
    return tuple(Encoding([100 + text], [0]) for text in row)

sets = {
    "pairs": EncodedDataset([EncodedExample(pieces(row[:2])) for row in three]),
    "hard negatives": EncodedDataset([EncodedExample(pieces(row)) for row in three]),
    "two passes": EncodedDataset([EncodedExample(pieces([row[0], row[0]]), passes=True) for row in three]),
    # rows of two to five texts, of which one or two belong to the first
    "ragged": EncodedDataset([
        EncodedExample(pieces(row + [(n + 4) % 11, (n + 7) % 11])[:2 + n % 4], context=[None, 2][n % 4 == 3])
        for n, row in enumerate(three)
    ]),
}
cuts = {1: [0, 8], 2: [0, 3, 8], 3: [0, 1, 6, 8]}[world]
for (name, rows), symmetric, mask in itertools.product(sets.items(), (False, True), (False, True)):
    weight = layer.clone().requires_grad_()
    batch = rows.get_batch(list(range(8))[cuts[rank]:cuts[rank + 1]], list)
    inputs = texts[batch.ragged.input_ids - 100]
    if name == "two passes":  # a little other dropout, by the pass
        side = torch.zeros(len(inputs))
        side[batch.pair_index.text_index[1]] = 1.0
        inputs = inputs * (1 + 0.3 * side[:, None] * torch.linspace(-1, 1, 6))
    options = EmbedOptions(
        symmetric=symmetric, mask_false_negatives=mask, margin=0.1, scale=9.0, matryoshka=[3]
    )
    task = Embed(options, DataConfig())
    loss = task.loss(SentenceOutput(inputs @ weight.t(), batch.pair_index), batch)
    loss.backward()
    key = f"{name}, symmetric {symmetric}, masked {mask}"
    found[key] = torch.cat([total(loss).view(1), total(weight.grad).flatten()])
    found["said of " + key] = task.report()
torch.save(found, f"{place}/found-{world}-{rank}")
if world > 1:
    dist.destroy_process_group()
"""


def computed(place: Path, world: int) -> list[dict]:
    command = [sys.executable, "-c", PROGRAM]
    started = [
        subprocess.Popen([*command, str(rank), str(world), str(place)], stderr=subprocess.PIPE, text=True)
        for rank in range(world)
    ]
    try:
        for process in started:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
    finally:
        for process in started:  # one that waits for another that has failed
            process.kill()
            process.wait()
    return [torch.load(place / f"found-{world}-{rank}") for rank in range(world)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    (found,) = computed(tmp_path_factory.mktemp("alone"), 1)
    assert torch.equal(found["integers"], torch.arange(12).view(6, 2))
    gradients = {key: value[1:] for key, value in found.items() if "symmetric" in key and "said" not in key}
    assert len(gradients) == 16
    assert all(float(g.abs().max()) > 0.1 for g in gradients.values())
    for name in ("pairs", "hard negatives", "two passes", "ragged"):
        for symmetric in (False, True):
            key = f"{name}, symmetric {symmetric}, masked"
            assert not torch.allclose(
                found[f"{key} True"], found[f"{key} False"], rtol=1e-3
            )  # some were left out
            said = found[f"said of {key} False"]  # texts of the same row are left out even then
            assert [line[:32] for line in said] == (
                ["4 of 190 in-batch negatives (2.1"] if name == "ragged" else []
            )
            assert "in-batch negatives" in found[f"said of {key} True"][0]
    return found


@pytest.mark.parametrize("world", [2, 3])
def test_several_processes_compute_what_one_does(world, alone, tmp_path):
    for found in computed(tmp_path, world):
        assert found.keys() == alone.keys()
        for key, value in alone.items():
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                torch.testing.assert_close(
                    found[key], value, atol=1e-6, rtol=1e-5, msg=lambda text, key=key: f"{key}: {text}"
                )
            elif isinstance(value, torch.Tensor):
                assert torch.equal(found[key], value), key
            else:
                assert found[key] == value, key


def test_one_process_gets_its_own_rows_back():
    from bertune.distributed import all_gather, num_processes

    x = torch.randn(3, 2, requires_grad=True)
    assert num_processes() == 1
    assert all_gather(x) is x
