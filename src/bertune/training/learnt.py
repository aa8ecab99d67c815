"""Says that a run has learnt nothing: at the first evaluation, and at the end; why, and what to change."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from bertune.config.schema import TrainConfig
from bertune.heads.model import Model
from bertune.tasks.base.baselines import Sign, compare_with_baseline
from bertune.tasks.base.task import Task
from bertune.training.history import History
from bertune.training.listener import Listener
from bertune.training.optim import head_rate_parameters
from bertune.types import JSON, Baseline, Example, Prediction, Scores

TINY_RATE = 1e-6
"""Learning rate of the encoder up to which, with the head's, nothing moves."""
HIGH_RATE = 1e-3
"""Learning rate of the encoder from which pretrained weights are lost."""
SLOW_HEAD = 2e-4
"""Learning rate of a head that begins at random, up to which it needs many steps."""
FEW_STEPS, MANY_STEPS = 150, 600
"""Steps below which a run is short; steps from which a slow head is no reason."""
MOST_EPOCHS = 20
"""Epochs that are advised at most."""
ROSE, FELL, STILL = 1.1, 0.8, 0.97
"""Last training loss by the first one: above it rose, below it fell, and from there on it did not fall."""
MOST_CAUSES = 3


@dataclass(frozen=True)
class RunFacts:
    """What may explain that a run has learnt nothing."""

    config: TrainConfig
    total_steps: int
    encoder_rate: float
    """Peak learning rate of the encoder's top layer."""
    head_rate: float | None
    """That of the head's layers without a rate of their own; None without such layers."""
    losses: Sequence[tuple[int, float]] = ()
    """Step and training loss of each log line."""
    is_vectors: bool = False
    """Whether the model before training is the baseline: then no layer begins at random."""


def peak_rates(model: Model, optimizer: torch.optim.Optimizer) -> tuple[float, float | None]:
    """Return the highest peak rate of the encoder, and that of head layers without a rate of their own."""
    rates = {id(p): group["peak_lr"] for group in optimizer.param_groups for p in group["params"]}
    of_head = {f"head.{name}" for name in head_rate_parameters(model)}
    found: dict[str, list[float]] = {"encoder": [], "head": []}
    for name, parameter in model.named_parameters():
        part = name.partition(".")[0]
        if id(parameter) in rates and (part == "encoder" or name in of_head):
            found[part].append(rates[id(parameter)])
    return max(found["encoder"], default=0.0), max(found["head"], default=None)


def likely_causes(facts: RunFacts, signs: Sequence[Sign] = ()) -> list[str]:
    """Return why a run may have learnt nothing, the likeliest first, each with what to type."""
    if facts.encoder_rate <= TINY_RATE and (facts.head_rate or 0.0) <= TINY_RATE:
        return [f"the learning rate of {facts.encoder_rate:g} changes nothing: try train.learning_rate=auto"]
    causes = [f"{sign.fact}: try {sign.remedy}" for sign in signs if sign.remedy]
    first, last = facts.losses[0] if facts.losses else (0, math.nan), (facts.losses or [(0, math.nan)])[-1]
    change = last[1] / first[1] if first[0] < last[0] and first[1] > 0 else math.nan
    course = f"from {first[1]:.4f} at step {first[0]} to {last[1]:.4f} at step {last[0]}"
    lower = f"train.learning_rate={facts.encoder_rate / 3:.1g}"
    if change > ROSE:
        causes.insert(0, f"the training loss rose, {course}, so the rate is too high: try {lower}")
    elif facts.encoder_rate >= HIGH_RATE:
        causes.insert(
            0, f"the encoder's rate of {facts.encoder_rate:g} is high: try train.learning_rate=auto"
        )
    if facts.is_vectors:
        worse = f"training did not help what the encoder could before: try {lower}, or fewer epochs"
        return causes[:MOST_CAUSES] or [worse]
    causes += _too_short(facts)
    if STILL <= change <= ROSE and facts.total_steps >= FEW_STEPS:
        columns = "see that data.columns names text and label"
        causes.append(f"the training loss did not fall, {course}: {columns}, or try {lower}")
    elif change < FELL and facts.total_steps >= FEW_STEPS:
        causes.append(f"the training loss fell, {course}, so dev rows may be of another kind: see data.dev")
    if not causes:
        causes.append("the labels may not depend on the texts: see that data.columns names text and label")
    return causes[:MOST_CAUSES]


def _too_short(facts: RunFacts) -> list[str]:
    """Return that a run has few steps, or a head that learns slowly."""
    config, total = facts.config, facts.total_steps
    is_slow = facts.head_rate is not None and facts.head_rate <= SLOW_HEAD and total < MANY_STEPS
    slow = f"the head learns at {facts.head_rate:g}" if is_slow else ""
    remedies = ["train.head_learning_rate=auto"] if is_slow else []
    if total >= FEW_STEPS:
        return [f"{slow}: try {remedies[0]}"] if is_slow else []
    if config.max_steps is not None:
        more = f"train.max_steps={FEW_STEPS}"
    else:
        epochs = math.ceil(max(config.epochs, 1) * FEW_STEPS / total)
        more = f"train.epochs={min(max(epochs, math.ceil(config.epochs) + 1), MOST_EPOCHS)}"
    facts_said = f"only {total} step{'s' * (total > 1)}" + (f", and {slow}" if slow else "")
    return [f"{facts_said}: try {' '.join([more, *remedies])}"]


class LearntCheck(Listener):
    """Compares the first evaluation with what a model that has learnt nothing scores.

    If that is no better, it is a warning, also in history.jsonl. A run that goes on says nothing twice. What
    is said at the end comes from `describe`.

    Args:
        task: says what predictions show.
        config: how the model is trained.
        examples: the dev rows.
        history: has the evaluations and losses so far; it must hear of events before.
        warn: called with step and message.
    """

    def __init__(
        self,
        task: Task,
        config: TrainConfig,
        examples: Sequence[Example],
        history: History,
        warn: Callable[[int, str], None],
    ) -> None:
        self._task, self._config, self._examples, self._history, self._warn = (
            task,
            config,
            examples,
            history,
            warn,
        )
        self.baseline: Baseline | None = None
        self.rates: tuple[float, float | None] = (0.0, None)
        """Peak learning rates of encoder and head; see `peak_rates`."""
        self.scores: Scores | None = None
        """Those of the last evaluation."""
        self.predictions: Sequence[Prediction] = ()
        """The predictions that were scored."""
        self.total_steps = 0
        """Steps of the whole run."""

    def on_evaluate(self, record: JSON) -> None:
        """Warn if this is the first evaluation, more steps follow, and it is no better than the baseline."""
        step = record["step"]
        if len(self._history.evaluations) == 1 and 0 < step < self.total_steps and self.scores is not None:
            self._say(
                step, self.describe(self.scores, self.predictions, f" at step {step} of {self.total_steps}")
            )

    def _say(self, step: int, message: str) -> None:
        if message and not self._history.has_warning(step, message):
            self._warn(step, message)

    def describe(self, scores: Scores, predictions: Sequence[Prediction], when: str = "") -> str:
        """Return that scores are no better than the baseline, why, and what to change; "" if they are better.

        Args:
            scores: of the dev rows, with their baseline.
            predictions: the predictions that were scored.
            when: which step they are of, such as " at step 40 of 120".
        """
        how = compare_with_baseline(scores)
        if not how:
            return ""
        signs = self._task.unlearnt_signs(predictions, self._examples)
        shown = "".join(f"; {sign.fact}" for sign in signs if not sign.remedy)
        causes = likely_causes(self._facts(), signs)
        return (
            f"dev {scores.main_metric} {scores.main_value:.4f}{when} is {how}{shown}. "
            f"Likely: {'; '.join(causes)}"
        )

    def _facts(self) -> RunFacts:
        encoder_rate, head_rate = self.rates
        return RunFacts(
            self._config,
            self.total_steps,
            encoder_rate,
            head_rate,
            [(record["step"], record["loss"]) for record in self._history.records],
            is_vectors=self._task.has_untrained_baseline(),
        )
