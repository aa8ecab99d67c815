"""A model and its rows to the rates that `auto` stands for; see `config/auto_rates.py` for the rule."""

from __future__ import annotations

import math

from bertune.config.auto_rates import Learner, has_auto, settle
from bertune.config.schema import RunConfig, TrainConfig
from bertune.data.batching import num_batches
from bertune.heads.model import Model
from bertune.tasks.base.task import Task
from bertune.training.build import open_folder
from bertune.training.new_encoder import new_encoder_of
from bertune.training.optim import head_rate_parameters


def num_steps(num_rows: int, config: TrainConfig) -> int:
    """Return the number of optimizer steps of a run."""
    if config.max_steps is not None:
        return config.max_steps
    return math.ceil(num_batches(num_rows, config.batch_size) * config.epochs)


def settle_run(
    run: RunConfig, task: Task, model: Model, num_rows: int, kept: frozenset[str] = frozenset()
) -> tuple[RunConfig, str]:
    """Put numbers in the place of `auto` in the settings of a run; they are the same in every process.

    Args:
        run: the settings.
        task: of the run.
        model: before its first step.
        num_rows: rows to train on.
        kept: parameters of the head that do not begin at random.

    Returns:
        The settings, and a line that says what was chosen and why; "" where nothing was `auto`.
    """
    if not has_auto(run.train):
        return run, ""
    encoder = model.encoder
    layers = encoder.hf_config().get("num_hidden_layers") or encoder.num_layers
    head_is_new = not kept.issuperset(head_rate_parameters(model))
    steps = num_steps(num_rows, run.train)
    is_new = new_encoder_of(run, task) is not None
    learner = Learner(encoder.hidden_size, int(layers), steps, task.auto_rates, head_is_new, is_new)
    train, line = settle(run.train, learner)
    return run.model_copy(update={"train": train}), line


def expected_settings(run: RunConfig, task: Task, num_rows: int) -> RunConfig:
    """Put the numbers in the place of `auto` that a run will get, before its model is built.

    By config.json of its encoder, and for a new head. Where config.json has other names for width and layers
    than most, `auto` stays.

    Raises:
        ConfigError: there is no such encoder.
    """
    config = open_folder(run).config
    width, layers = (
        next((int(config[name]) for name in names if isinstance(config.get(name), int)), 0)
        for names in (("hidden_size", "dim", "d_model"), ("num_hidden_layers", "n_layers", "num_layers"))
    )
    if not width or not layers or not has_auto(run.train):
        return run
    learner = Learner(width, layers, num_steps(num_rows, run.train), task.auto_rates)
    return run.model_copy(update={"train": settle(run.train, learner)[0]})
