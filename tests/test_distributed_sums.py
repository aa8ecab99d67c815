"""What several real processes share: items, objects, numbers, and gradients summed in bounded messages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from bertune import distributed

PROGRAM = """
import sys
import torch
import torch.distributed as dist
from torch import nn
from bertune import distributed

rank, world, place = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{place}/meet", rank=rank, world_size=world)
here = torch.device("cpu")
found = {"who": (distributed.rank(), distributed.num_processes())}

found["shares"] = {n: list(distributed.own_share(list(range(n)))) for n in (0, 1, 2, 3, 7, 12)}
found["text"] = distributed.own_share("abcdefg")
own = {"rank": rank, "rows": list(range(rank)), "text": "\\u597d" * rank, "nothing": None}
found["everyones"] = distributed.all_gather_object(own)
own = (f"of {rank}", None if rank == 0 else 5, (rank, [rank]))
found["of first"] = [distributed.broadcast_object(x) for x in own]
own = [1.5 * rank, 1.0, 1e16 if rank == 0 else 1.0, 2.0**-40 if rank else 1.0]
found["summed"] = distributed.all_reduce_sum(own, here)
found["summed of nothing"] = distributed.all_reduce_sum([], here)
own = [float("inf") if rank == 0 else 1.0, float("nan") if rank == world - 1 else 1.0]
found["summed, not finite"] = distributed.all_reduce_sum(own, here)
distributed.barrier()


def parameters():
    random = torch.Generator().manual_seed(1)
    shapes = ((3, 4), (5,), (), (2, 2), (0, 3), (7, 3), (6,), (2,))
    made = [nn.Parameter(torch.randn(shape, generator=random)) for shape in shapes]
    made[6].requires_grad_(False)
    for n, parameter in enumerate(made):
        here = (True, rank == 0, True, rank > 0, True, rank == world - 1, False, False)[n]
        if here:
            random = torch.Generator().manual_seed(100 * n + rank)
            parameter.grad = torch.randn(parameter.shape, generator=random)
    if parameters.transposed:  # a gradient that does not lie in one piece
        made[0].grad = made[0].grad.t().contiguous().t()
    return made


parameters.transposed = False
messages = []
together = distributed._all_reduce_bucket
distributed._all_reduce_bucket = lambda held: (messages.append([t.numel() for t in held]), together(held))
for bucket in (25 * 2**20, 64, 1):
    distributed.BUCKET_BYTES = bucket
    messages.clear()
    made = parameters()
    before = [p.grad for p in made]
    distributed.all_reduce_gradients(iter(made))
    found[f"gradients, {bucket}"] = [p.grad for p in made]
    found[f"messages, {bucket}"] = list(messages)
    found[f"in place, {bucket}"] = all(p.grad is b for p, b in zip(made, before) if b is not None)
parameters.transposed = True
made = parameters()
distributed.all_reduce_gradients(made)
found["transposed"] = made[0].grad
messages.clear()
none = [nn.Parameter(torch.ones(2)) for _ in range(3)]
distributed.all_reduce_gradients(none)
found["nowhere"] = [p.grad for p in none], list(messages)
made = [nn.Parameter(torch.zeros(2))]
made[0].grad = torch.tensor([float("inf") if rank == 0 else 1.0, 1.0])
distributed.all_reduce_gradients(made)
found["not finite"] = made[0].grad

with distributed.single_process():
    apart = [distributed.rank(), distributed.num_processes(), list(distributed.own_share([1, 2, 3]))]
    apart += [distributed.all_gather_object(rank), distributed.broadcast_object(rank)]
    apart.append(distributed.all_reduce_sum([float(rank)], here))
    made = [nn.Parameter(torch.zeros(2))]
    made[0].grad = torch.full((2,), float(rank))
    distributed.all_reduce_gradients(made)
    apart.append(made[0].grad.tolist())
    x = torch.full((rank + 1, 2), float(rank))
    apart.append(distributed.all_gather(x) is x)
    if rank == 0:
        distributed.barrier()  # waits for nobody
    with distributed.single_process():
        pass
    apart.append(distributed.num_processes())  # still alone
    found["alone"] = apart
try:
    with distributed.single_process():
        raise KeyError
except KeyError:
    found["together again"] = distributed.num_processes(), distributed.all_gather_object(rank)
torch.save(found, f"{place}/found-{rank}")
dist.destroy_process_group()
"""


@pytest.fixture(scope="module", params=[2, 3])
def found(request, tmp_path_factory) -> list[dict]:
    """What each of several processes has found."""
    world, place = request.param, tmp_path_factory.mktemp("meet")
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
            process.communicate()
    return [torch.load(Path(place) / f"found-{rank}", weights_only=False) for rank in range(world)]


def test_each_process_knows_which_it_is(found):
    assert [f["who"] for f in found] == [(rank, len(found)) for rank in range(len(found))]


def test_together_the_processes_have_each_item_once(found):
    for n in (0, 1, 2, 3, 7, 12):
        dealt = [f["shares"][n] for f in found]
        assert sorted(item for share in dealt for item in share) == list(range(n))
        assert max(map(len, dealt)) - min(map(len, dealt)) <= 1
        assert all(share == sorted(share) for share in dealt)
    assert "".join(sorted("".join(f["text"] for f in found))) == "abcdefg"


def test_everybody_gets_the_items_of_all_in_the_order_of_the_processes(found):
    expected = [
        {"rank": r, "rows": list(range(r)), "text": "好" * r, "nothing": None} for r in range(len(found))
    ]
    assert all(f["everyones"] == expected for f in found)


def test_everybody_gets_the_item_of_the_first(found):
    assert all(f["of first"] == ["of 0", None, (0, [0])] for f in found)


def test_numbers_are_summed_in_double_precision(found):
    world = len(found)
    for f in found:
        assert f["summed"][:2] == [1.5 * sum(range(world)), world]
        assert f["summed"][2] == pytest.approx(1e16 + world - 1, abs=4)
        assert f["summed"][3] == 1 + (world - 1) * 2.0**-40  # fp32 would say 1
        assert f["summed of nothing"] == []
        assert f["summed, not finite"][0] == float("inf")
        assert f["summed, not finite"][1] != f["summed, not finite"][1]


def expected_gradients(world: int) -> list[torch.Tensor | None]:
    """The sums, computed here; None where no process has a gradient."""
    shapes = ((3, 4), (5,), (), (2, 2), (0, 3), (7, 3))
    who = (range(world), [0], range(world), range(1, world), range(world), [world - 1])
    made = []
    for n, (shape, ranks) in enumerate(zip(shapes, who, strict=True)):
        made.append(
            sum(torch.randn(shape, generator=torch.Generator().manual_seed(100 * n + rank)) for rank in ranks)
        )
    return [*made, None, None]


@pytest.mark.parametrize("bucket", [25 * 2**20, 64, 1])
def test_gradients_are_summed_whoever_has_one_and_however_messages_are_cut(found, bucket):
    for f in found:
        for ours, expected in zip(f[f"gradients, {bucket}"], expected_gradients(len(found)), strict=True):
            assert (ours is None) == (expected is None)
            if ours is not None:
                torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-6)
        assert f[f"in place, {bucket}"]
    for other in found[1:]:  # bit for bit: each process takes the same step
        for ours, theirs in zip(found[0][f"gradients, {bucket}"], other[f"gradients, {bucket}"], strict=True):
            assert ours is None or torch.equal(ours, theirs)


def test_a_message_is_sent_as_soon_as_it_is_full(found):
    for f in found:
        assert f[f"messages, {25 * 2**20}"] == [[12, 5, 1, 4, 0, 21]]
        assert f["messages, 64"] == [[12, 5], [1, 4, 0, 21]]  # 48 + 20 bytes, and so on
        assert f["messages, 1"] == [[12], [5], [1], [4], [0, 21]]


def test_a_gradient_that_does_not_lie_in_one_piece_is_summed_too(found):
    for f in found:
        torch.testing.assert_close(f["transposed"], expected_gradients(len(found))[0], atol=1e-6, rtol=1e-6)


def test_without_any_gradient_there_is_none_afterwards_and_nothing_is_sent(found):
    assert all(f["nowhere"] == ([None] * 3, []) for f in found)


def test_what_is_not_finite_in_one_process_is_so_in_all(found):
    for f in found:
        assert f["not finite"].tolist() == [float("inf"), len(found)]


def test_alone_each_process_has_its_own(found):
    for rank, f in enumerate(found):
        assert f["alone"] == [0, 1, [1, 2, 3], [rank], rank, [float(rank)], [float(rank)] * 2, True, 1]
        assert f["together again"] == (len(found), list(range(len(found))))


def test_one_process_keeps_what_it_has():
    items, device = [3, 1, 2], torch.device("cpu")
    assert (distributed.rank(), distributed.num_processes()) == (0, 1)
    assert distributed.own_share(items) is items
    assert distributed.all_gather_object(items) == [items]
    assert distributed.broadcast_object(items) is items
    assert distributed.all_reduce_sum([0.1, 2], device) == [0.1, 2]
    distributed.barrier()
    parameter = nn.Parameter(torch.zeros(2))
    distributed.all_reduce_gradients([parameter])
    assert parameter.grad is None
    parameter.grad = torch.ones(2)
    distributed.all_reduce_gradients([parameter])
    assert parameter.grad.tolist() == [1, 1]
    with distributed.single_process():
        assert distributed.num_processes() == 1


def test_nothing_is_joined_where_no_launcher_has_started_anything(monkeypatch):
    import torch.distributed as dist

    for environment in (
        {},
        {"WORLD_SIZE": "1", "RANK": "0"},
        {"WORLD_SIZE": "2"},
    ):  # without a rank it is somebody else's variable
        for name in ("WORLD_SIZE", "RANK"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        distributed.init(use_cpu=True)
        assert not dist.is_initialized()
        assert distributed.num_processes() == 1
