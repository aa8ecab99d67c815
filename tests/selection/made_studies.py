"""Studies made from functions, without training."""

from __future__ import annotations

import math
import random

from bertune.selection.space import Dimension, SearchSpace
from bertune.selection.trials import Study, Trial

EVIL = "</script><script>alert(1)</script>"
SPACE = SearchSpace(
    (
        Dimension("train.learning_rate", "log_uniform", (1e-6, 1e-3)),
        Dimension("train.epochs", "int", (1, 6)),
        Dimension("train.batch_size", "choice", (8, 16, 32)),
        Dimension("options.loss", "choice", ("cross_entropy", "focal")),
        Dimension("options.focal_gamma", "uniform", (0.5, 5.0), {"options.loss": ("focal",)}),
        Dimension("options.pooling", "choice", ("cls", "mean", EVIL)),
        Dimension("data.labels", "choice", (["好评", "差评"], ["差评", "好评"], None)),
    )
)

SMALL_SPACE = SearchSpace((SPACE.dimensions[0], SPACE.dimensions[2]))


def wide_space(count: int = 40) -> SearchSpace:
    """Many settings, a Chinese one and one with a long name among them."""
    more = [Dimension(f"options.setting_number_{i}", "uniform", (0.0, 1.0)) for i in range(count - 3)]
    return SearchSpace(
        (
            Dimension("train.learning_rate", "log_uniform", (1e-6, 1e-3)),
            Dimension("options.a_setting_with_a_really_very_long_name", "choice", ("x" * 300, "短")),
            Dimension("options.标签", "choice", ("正面评价" * 6, "负面")),
            *more,
        )
    )


def synthetic(settings: dict) -> float:
    """A score that depends on the learning rate alone."""
    return 0.6 - 0.1 * (math.log10(settings["train.learning_rate"]) + 4.5) ** 2


def draw(space: SearchSpace, rng: random.Random) -> dict:
    settings: dict = {}
    for d in space.dimensions:
        if not d.is_active(settings):
            continue
        if d.kind == "choice":
            settings[d.name] = rng.choice(d.values)
        elif d.kind == "int":
            settings[d.name] = rng.randint(*d.values)
        elif d.kind == "uniform":
            settings[d.name] = float(f"{rng.uniform(*d.values):.4g}")
        else:
            low, high = map(math.log, d.values)
            settings[d.name] = float(f"{math.exp(rng.uniform(low, high)):.4g}")
    return settings


def make_study(
    count: int,
    space: SearchSpace = SPACE,
    *,
    states: str | None = None,
    higher_is_better: bool = True,
    planned: int | None = None,
    seed: int = 0,
    score=synthetic,
) -> Study:
    """Return a study; `states` says "c", "p", "f" or "r" for each trial, else mixed ones are drawn."""
    rng = random.Random(seed)
    trials = []
    for number in range(count):
        settings = draw(space, rng)
        state = states[number] if states else ("c" if number < 3 else rng.choices("cpf", (6, 3, 1))[0])
        end = score(settings) * (1 if higher_is_better else -1)
        curve = (*(end * (1 - 0.5 ** (i + 1)) + rng.gauss(0, 0.01) for i in range(5)), end)
        seconds = rng.uniform(40, 90)
        if state == "c":
            trial = Trial(number, settings, "complete", end, {"mcc": end}, curve, seconds, 120)
        elif state == "p":
            trial = Trial(number, settings, "pruned", None, {}, curve[:2], seconds / 3, 40, "at step 40")
        elif state == "f":
            trial = Trial(number, settings, "failed", None, {}, (), 3.0, 0, "out of memory: 2 GiB asked")
        else:
            trial = Trial(number, settings, "running", None, {}, curve[:3], 31.0, 60)
        trials.append(trial)
    return Study(tuple(trials), "mcc", higher_is_better, (684, 171), planned or count)
