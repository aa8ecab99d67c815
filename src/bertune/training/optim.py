"""AdamW, parameter groups with their learning rates, and schedules."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from bertune.config.auto_rates import number, warmup_steps
from bertune.config.schema import TrainConfig
from bertune.errors import ConfigError, listed
from bertune.heads.model import Model

POLYNOMIAL_END = 1e-7  # the last learning rate of the polynomial schedule, as in transformers and bertorch


def describe_warmup(config: TrainConfig, total: int) -> str:
    """Return a line about a warm-up that the run is too short for, or ""."""
    given = config.warmup_steps
    if given is None or given < total or config.schedule == "constant":
        return ""
    return (
        f"train.warmup_steps={given} leaves none of the {total} steps of the run to learn at the full rate: "
        f"shortened to {warmup_steps(config, total)}"
    )


def lr_schedule(config: TrainConfig, total: int) -> Callable[[int], float]:
    """Return the factor on every learning rate as a function of the steps done.

    Args:
        config: `schedule`, the warm-up, `schedule_cycles`, `schedule_power`.
        total: steps of the whole run.

    Source: `transformers/optimization.py`, the six schedules that bertorch offers too.
    """
    warmup = 0 if config.schedule == "constant" else warmup_steps(config, total)
    span = max(1, total - warmup)
    end = POLYNOMIAL_END / number(config, "learning_rate") if config.schedule == "polynomial" else 0.0
    decays: dict[str, Callable[[float], float]] = {
        "constant": lambda _: 1.0,
        "constant_with_warmup": lambda _: 1.0,
        "linear": lambda x: max(0.0, 1 - x),
        "cosine": lambda x: max(0.0, 0.5 * (1 + math.cos(math.pi * x))),
        "cosine_with_restarts": lambda x: (
            0.0 if x >= 1 else 0.5 * (1 + math.cos(math.pi * ((config.schedule_cycles * x) % 1)))
        ),
        "polynomial": lambda x: end if x > 1 else (1 - end) * (1 - x) ** config.schedule_power + end,
    }
    decay = decays[config.schedule]

    def factor(step: int) -> float:
        return step / warmup if step < warmup else decay((step - warmup) / span)

    return factor


def parameter_groups(model: Model, config: TrainConfig) -> list[dict[str, Any]]:
    """Group parameters by learning rate and weight decay.

    Matrices decay; biases and norms, which have one dimension, do not. A layer `d` below the top of the
    encoder learns at `layer_decay ** d` of the encoder's rate. The head learns at its own rate; parameters
    that the head lists in `learning_rates`, by the first part of their name, learn at the rate given there,
    without weight decay.

    Raises:
        ConfigError: a learning rate for the head is given, but no layer of the head uses it.
    """
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    top = model.encoder.num_layers
    encoder_rate = number(config, "learning_rate")
    given = config.head_learning_rate is not None
    head_rate = number(config, "head_learning_rate") if given else encoder_rate
    learning_rates = model.head.learning_rates
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part, _, rest = name.partition(".")
        below = top - model.encoder.layer_index(rest) if part == "encoder" else 0
        rate = encoder_rate * config.layer_decay**below if part == "encoder" else head_rate
        decay = config.weight_decay if parameter.ndim > 1 else 0.0
        own = learning_rates.get(rest.split(".")[0]) if part == "head" else None
        rate, decay = (rate, decay) if own is None else (own, 0.0)
        groups.setdefault((rate, decay), []).append(parameter)
    if given and not head_rate_parameters(model):
        layers = f"; {listed(learning_rates)} has its own learning rate in options" if learning_rates else ""
        raise ConfigError(
            f"train.head_learning_rate: no layer of this head learns at it{layers}; leave it out"
        )
    return [
        {"params": members, "lr": rate, "peak_lr": rate, "weight_decay": decay}
        for (rate, decay), members in groups.items()
    ]


def head_rate_parameters(model: Model) -> list[str]:
    """Name the parameters of a head that learn at the head's rate: those without a rate of their own."""
    own = model.head.learning_rates
    return [
        name
        for name, parameter in model.head.named_parameters()
        if parameter.requires_grad and name.split(".")[0] not in own
    ]


def build_optimizer(model: Model, config: TrainConfig) -> torch.optim.Optimizer:
    """Return AdamW, fused into one pass over memory where torch offers that.

    Source: Loshchilov and Hutter 2017, arXiv 1711.05101; `torch.optim.AdamW`.
    """
    device = next(model.parameters()).device.type
    return torch.optim.AdamW(
        parameter_groups(model, config),
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        fused=device in {"cpu", "cuda", "mps"},
    )


def set_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set the learning rate of every group to `factor` times its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
