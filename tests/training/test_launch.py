"""What accelerate's launcher leaves in the environment changes nothing silently."""

from __future__ import annotations

import pytest
import torch

from bertune.config.schema import RunConfig
from bertune.errors import ConfigError
from bertune.training.launch import apply_launcher_settings, build_accelerator


@pytest.fixture(autouse=True)
def fresh_accelerate():
    from accelerate.state import AcceleratorState

    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize(
    ("variable", "value", "instead"),
    [
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", "train.micro_batches"),
        ("ACCELERATE_MIXED_PRECISION", "fp16", "train.precision decides"),
        ("ACCELERATE_MIXED_PRECISION", "fp8", "train.precision decides"),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR", "models are not compiled"),
    ],
)
def test_what_is_not_used_is_said(variable, value, instead, monkeypatch):
    monkeypatch.setenv(variable, value)
    notes: list[str] = []
    assert apply_launcher_settings(RunConfig(task="classify"), notes.append) == RunConfig(task="classify")
    assert len(notes) == 1
    assert f"{variable}={value}" in notes[0]
    assert instead in notes[0]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1"),
        ("ACCELERATE_MIXED_PRECISION", "no"),
        ("ACCELERATE_DYNAMO_BACKEND", "NO"),
        ("ACCELERATE_USE_CPU", "false"),
    ],
)
def test_what_the_launcher_always_sets_is_not_said(variable, value, monkeypatch):
    monkeypatch.setenv(variable, value)
    notes: list[str] = []
    apply_launcher_settings(RunConfig(task="classify"), notes.append)
    assert notes == []


@pytest.mark.parametrize(
    "variable",
    [
        "ACCELERATE_USE_DEEPSPEED",
        "ACCELERATE_USE_MEGATRON_LM",
        "ACCELERATE_USE_PARALLELISM_CONFIG",
        "ACCELERATE_USE_SAGEMAKER",
    ],
)
def test_what_we_do_not_have_is_refused(variable, monkeypatch):
    monkeypatch.setenv(variable, "true")
    with pytest.raises(ConfigError, match=f"{variable}=true"):
        apply_launcher_settings(RunConfig(task="classify"), lambda line: None)


def test_the_processor_is_taken_over(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    notes: list[str] = []
    assert apply_launcher_settings(RunConfig(task="classify"), notes.append).device == "cpu"
    assert notes == ["the launcher's configuration asks for the processor, so device=cpu"]


def test_another_device_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", "meta")
    with pytest.raises(
        ConfigError, match=r"bertune computes on cpu .* chosen meta .ACCELERATE_TORCH_DEVICE=meta"
    ):
        build_accelerator(RunConfig(task="classify", device="cpu"), tmp_path)


def test_accumulation_steps_do_not_change_the_gradient(tmp_path, monkeypatch):
    accelerator = build_accelerator(RunConfig(task="classify", device="cpu"), tmp_path)[0]
    weight = torch.ones(3, requires_grad=True)
    accelerator.backward(weight.sum())
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    accelerator = build_accelerator(RunConfig(task="classify", device="cpu"), tmp_path)[0]
    same = torch.ones(3, requires_grad=True)
    accelerator.backward(same.sum())
    assert torch.equal(weight.grad, same.grad)
    assert accelerator.gradient_accumulation_steps == 1
