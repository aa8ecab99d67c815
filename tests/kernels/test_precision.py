"""The settings choose device, precision and memory, and the reason is given."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from bertune.errors import ConfigError
from bertune.kernels import allocator, precision
from bertune.kernels.allocator import limit_kernel_caches, retain_freed_memory
from bertune.kernels.precision import FP32, choose_device, choose_precision, has_fast_bf16
from bertune.types import Numerics

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class Library:
    """A C library that records calls."""

    def __init__(self, *answers: int, glibc: bool = True) -> None:
        self.answers, self.calls = list(answers), []
        if glibc:
            self.gnu_get_libc_version = lambda: b"2.39"

    def mallopt(self, option: int, value: int) -> int:
        self.calls.append((option, value))
        return self.answers.pop(0)


@pytest.fixture
def libc(monkeypatch):
    """Linux without settings, and a C library of the test."""
    for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "BERTUNE_KEEP_PAGES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(allocator, "sys", SimpleNamespace(platform="linux"))

    def choose(library):
        def opened(name):
            if isinstance(library, Exception):
                raise library
            return library

        monkeypatch.setattr(allocator, "ctypes", SimpleNamespace(CDLL=opened))
        return library

    return choose


def test_pages_are_kept(libc):
    library = libc(Library(1, 1))
    assert retain_freed_memory() is True
    assert library.calls == [(-3, 2**30), (-1, 2**31 - 1)]


@pytest.mark.parametrize("value", ["1", "yes", ""])
def test_pages_are_kept_unless_it_is_0(value, libc, monkeypatch):
    monkeypatch.setenv("BERTUNE_KEEP_PAGES", value)
    libc(Library(1, 1))
    assert retain_freed_memory() is True


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BERTUNE_KEEP_PAGES", "0"),
        ("MALLOC_MMAP_THRESHOLD_", "1000000"),
        ("MALLOC_TRIM_THRESHOLD_", "1"),
        ("MALLOC_TRIM_THRESHOLD_", ""),
    ],
)
def test_the_environment_wins(name, value, libc, monkeypatch):
    monkeypatch.setenv(name, value)
    library = libc(Library(1, 1))
    assert retain_freed_memory() is False
    assert library.calls == []


@pytest.mark.parametrize("platform", ["darwin", "win32", "cygwin"])
def test_other_systems_are_left_alone(platform, libc, monkeypatch):
    library = libc(Library(1, 1))
    monkeypatch.setattr(allocator, "sys", SimpleNamespace(platform=platform))
    assert retain_freed_memory() is False
    assert library.calls == []


@pytest.mark.parametrize(
    "library",
    [
        OSError("no such file"),
        Library(1, 1, glibc=False),
        SimpleNamespace(),
        SimpleNamespace(gnu_get_libc_version=1),
    ],
    ids=["no file", "musl", "nothing in it", "a number"],
)
def test_another_c_library_is_left_alone(library, libc):
    libc(library)
    assert retain_freed_memory() is False
    assert getattr(library, "calls", []) == []


@pytest.mark.parametrize("answers", [(0, 0, 1), (1, 0), (0, 1, 0), (0, 0, 0)])
def test_what_the_library_refuses_is_not_claimed(answers, libc):
    library = libc(Library(*answers))
    assert retain_freed_memory() is False
    assert library.calls[-1] == (-1, 2**31 - 1)  # both are set, whether or not the other one failed


def test_an_older_library_takes_32_mb(libc):
    library = libc(Library(0, 1, 1))
    assert retain_freed_memory() is True
    assert library.calls == [(-3, 2**30), (-3, 2**25), (-1, 2**31 - 1)]


EFFECT = """
import ctypes
import torch
from bertune.kernels.allocator import retain_freed_memory

class Info(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

def mapped():
    read = ctypes.CDLL("libc.so.6").mallinfo2
    read.restype = Info
    before = read().hblks
    kept = torch.empty(20_000_000)
    return read().hblks - before

before = mapped()
done = retain_freed_memory()
print(before, done, mapped())
"""


def _has_mallinfo2() -> bool:
    import ctypes

    try:
        return sys.platform == "linux" and hasattr(ctypes.CDLL("libc.so.6"), "mallinfo2")
    except OSError:
        return False


@pytest.mark.skipif(not _has_mallinfo2(), reason="needs glibc 2.33")
def test_large_tensors_are_no_longer_mapped():
    environ = {"PATH": "", "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [sys.executable, "-c", EFFECT], capture_output=True, text=True, check=True, env=environ
    )
    before, done, after = process.stdout.split()
    assert (before, done, after) in {("1", "True", "0"), ("1", "False", "1")}


@pytest.mark.parametrize(("setting", "expected"), [("auto", "bf16"), ("bf16", "bf16"), ("fp32", "fp32")])
def test_precision_where_there_are_units_for_bf16(setting, expected, monkeypatch):
    monkeypatch.setattr(precision, "has_fast_bf16", lambda _: True)
    for device in (CPU, CUDA):
        process, why = choose_precision(setting, device)
        assert process == expected
        assert (why == "as set") == (setting != "auto")
        assert "slower" not in why


@pytest.mark.parametrize(("setting", "expected"), [("auto", "fp32"), ("bf16", "bf16"), ("fp32", "fp32")])
def test_precision_where_there_are_none(setting, expected, monkeypatch):
    monkeypatch.setattr(precision, "has_fast_bf16", lambda _: False)
    for device in (CPU, CUDA):
        process, why = choose_precision(setting, device)
        assert process == expected
        assert ("slower" in why) == (setting == "bf16")
        assert why if setting != "auto" else device.type in why


def test_fp16_needs_cuda():
    assert choose_precision("fp16", CUDA) == ("fp16", "as set")
    for device in (CPU, torch.device("mps")):
        with pytest.raises(ConfigError, match="fp16 needs a CUDA GPU"):
            choose_precision("fp16", device)


@pytest.mark.parametrize("setting", ["", "half", "FP32", "float32", "none"])
def test_a_precision_that_is_none(setting):
    with pytest.raises(ConfigError, match="is none of"):
        choose_precision(setting, CPU)


@pytest.mark.parametrize(
    ("abilities", "expected"),
    [
        ({"amx_bf16": True}, True),
        ({"avx512_bf16": True}, True),
        ({"avx512_f": True, "amx_bf16": False}, False),
        ({}, False),
    ],
)
def test_what_the_processor_can(abilities, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: abilities, raising=False)
    assert has_fast_bf16(CPU) is expected
    assert has_fast_bf16(torch.device("mps")) is False


def test_an_old_torch_does_not_know_what_the_processor_can(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert has_fast_bf16(CPU) is False


@pytest.mark.parametrize(("ability", "expected"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_what_the_gpu_can(ability, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: ability)
    assert has_fast_bf16(CUDA) is expected


@pytest.mark.parametrize(
    ("cuda", "mps", "best"),
    [(True, False, "cuda"), (True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_device(cuda, mps, best, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device("auto").type == best
    for name, available in (("cpu", True), ("cuda", cuda), ("mps", mps)):
        if available:
            assert choose_device(name).type == name
        else:
            with pytest.raises(ConfigError, match=r"found: .*cpu"):
                choose_device(name)
    with pytest.raises(ConfigError, match="is none of"):
        choose_device("gpu")


def test_numerics():
    assert (FP32.precision, FP32.dtype, FP32.fast_dropout) == ("fp32", torch.float32, True)
    assert {p: Numerics(p).dtype for p in ("fp32", "bf16", "fp16")} == {
        "fp32": torch.float32,
        "bf16": torch.bfloat16,
        "fp16": torch.float16,
    }


def test_caches_are_bounded_unless_the_environment_says(monkeypatch):
    monkeypatch.delenv("LRU_CACHE_CAPACITY", raising=False)
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "7")
    monkeypatch.setattr(allocator.os, "environ", environment := dict(allocator.os.environ))
    limit_kernel_caches(32)
    assert (environment["ONEDNN_PRIMITIVE_CACHE_CAPACITY"], environment["LRU_CACHE_CAPACITY"]) == ("7", "32")


SHAPES = """
import sys
import torch
from bertune.kernels.linear import Linear
from bertune.kernels.allocator import limit_kernel_caches

if sys.argv[1] == "bounded":
    limit_kernel_caches(32)

def megabytes():
    return int(open("/proc/self/statm").read().split()[1]) * 4 / 1024

layer = Linear(384, 1536)
torch.nn.init.normal_(layer.weight)
torch.nn.init.zeros_(layer.bias)
with torch.inference_mode():
    layer.prepare_inference(torch.bfloat16)
    for rows in range(1000, 1400):
        layer(torch.zeros(rows, 384, dtype=torch.bfloat16))
        if rows == 1150:
            before = megabytes()
print(megabytes() - before)
"""


@pytest.mark.skipif(
    sys.platform != "linux" or not has_fast_bf16(torch.device("cpu")), reason="needs bf16 units, and /proc"
)
def test_new_shapes_cost_no_new_memory():
    environment = {
        k: v
        for k, v in os.environ.items()
        if k not in {"ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"}
    }
    grown = {
        how: float(
            subprocess.run(
                [sys.executable, "-c", SHAPES, how],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for how in ("bounded", "unbounded")
    }
    assert grown["bounded"] < 150
    assert grown["unbounded"] > 2 * grown["bounded"]  # or this tests nothing
