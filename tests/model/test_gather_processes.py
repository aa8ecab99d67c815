"""Negatives of several processes: the loss of embed over gloo processes is that of one process with the joined batch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

PROGRAM = '''
import sys
import torch
import torch.distributed as dist
from bertune.config import DataConfig
from bertune.model.gather import everyone
from bertune.model.sentence_head import Compared
from bertune.tasks.embed import Embed, EmbedOptions
from bertune.types import Batch, Ragged, Sides

rank, world, place, symmetric, sides = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4] == "True", int(sys.argv[5])
torch.set_num_threads(1)
if world > 1:
    dist.init_process_group("gloo", init_method=f"file://{place}/meet-{world}-{symmetric}-{sides}", rank=rank, world_size=world)
random = torch.Generator().manual_seed(0)
texts = torch.randn(12, 6, generator=random)
weight = torch.randn(5, 6, generator=random).requires_grad_()
rows = [[0, 1, 9], [2, 3, 10], [0, 4, 11], [5, 3, 1], [6, 7, 9], [8, 2, 10], [7, 6, 3]]  # which text stands where; some repeat
cuts = [0, 7] if world == 1 else [0, 3, 7] if world == 2 else [0, 1, 3, 7]
mine = [row[:sides] for row in rows[cuts[rank]:cuts[rank + 1]]]
used = sorted({text for row in mine for text in row})
places = tuple(torch.tensor([used.index(row[n]) for row in mine]) for n in range(sides))
task = Embed(EmbedOptions(symmetric=symmetric), DataConfig())
empty = torch.zeros(0, dtype=torch.int64)
batch = Batch(Ragged(empty, empty, torch.zeros(1, dtype=torch.int64), ()), None, tuple(range(len(mine))))
loss = task.loss(Compared(texts[used] @ weight.t(), Sides(places, torch.tensor(used))), batch)
loss.backward()
if world > 1:
    joined = everyone(torch.arange(cuts[rank], cuts[rank + 1]))
    assert joined.tolist() == list(range(7)), joined
    dist.all_reduce(weight.grad)
    total = loss.detach().clone()
    dist.all_reduce(total)
    loss = total
torch.save({"gradient": weight.grad, "loss": loss.detach(), "said": task.report()}, f"{place}/found-{world}-{rank}-{symmetric}-{sides}")
if world > 1:
    dist.destroy_process_group()
'''


def found(place: Path, world: int, symmetric: bool, sides: int) -> list[dict]:
    command = [sys.executable, "-c", PROGRAM]
    started = [
        subprocess.Popen([*command, str(rank), str(world), str(place), str(symmetric), str(sides)], stderr=subprocess.PIPE, text=True)
        for rank in range(world)
    ]
    for process in started:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    return [torch.load(place / f"found-{world}-{rank}-{symmetric}-{sides}") for rank in range(world)]


@pytest.mark.parametrize(("symmetric", "sides", "worlds"), [(False, 2, (2, 3)), (True, 3, (2,))])
def test_several_processes_are_one(tmp_path, symmetric, sides, worlds):
    (alone,) = found(tmp_path, 1, symmetric, sides)
    assert alone["gradient"].abs().max() > 0.1
    assert alone["said"]
    for world in worlds:
        for process in found(tmp_path, world, symmetric, sides):
            torch.testing.assert_close(process["gradient"], alone["gradient"], atol=1e-6, rtol=1e-5)
            torch.testing.assert_close(process["loss"], alone["loss"], atol=1e-5, rtol=1e-6)
            assert process["said"] == alone["said"]
