"""The finished folds or seeds of a cross-validation on disk, so that one that was killed goes on."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bertune.config.load import dump_config
from bertune.config.schema import RunConfig
from bertune.errors import ConfigError
from bertune.files import PART, read_json_object, remove_folder, write_json, write_text
from bertune.training.resume import Note, check_settings
from bertune.types import JSON, Entity, Prediction, Scores

PARTS = "folds"
_PLAN = "plan.json"


@dataclass(frozen=True)
class Part:
    """What one fold, or one seed, came to."""

    number: int
    """The fold, from 1; or the seed."""
    scores: Scores
    """Of the rows held out, without intervals."""
    loss: float
    num_rows: tuple[int, int]
    """Rows that trained, and rows that were scored."""
    steps: int
    seconds: float
    """Of training alone."""
    has_vectors: bool = False
    """Whether the scores come from vectors, which other folds' models make in another way."""
    predictions: Sequence[Prediction] = field(default=(), repr=False)
    """One for each row that was scored."""

    def to_json(self) -> JSON:
        """Return what it came to, without predictions."""
        return {
            "number": self.number,
            "rows": list(self.num_rows),
            "steps": self.steps,
            "seconds": round(self.seconds, 3),
            "has_vectors": self.has_vectors,
            "loss": self.loss,
            "scores": self.scores.to_json(),
        }

    @classmethod
    def from_json(cls, values: JSON) -> Part:
        """Return what `to_json` wrote."""
        train, dev = values["rows"]
        loss = values["loss"]
        return cls(
            values["number"],
            scores_from_json(values["scores"]),
            math.nan if loss is None else loss,
            (train, dev),
            values["steps"],
            values["seconds"],
            values["has_vectors"],
        )


class PartStore:
    """The folder `folds` inside the folder of a cross-validation.

    Args:
        out: the folder of the cross-validation.
        name: what a part is: fold or seed.
    """

    def __init__(self, out: Path, name: str) -> None:
        self.out, self.name = out, name
        self._folder = out / PARTS

    def begin(self, run: RunConfig, plan: JSON) -> None:
        """Write the settings and the plan, before the first part.

        Raises:
            ConfigError: the folder cannot be written.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_text(self.out / "run.yaml", dump_config(run))
            write_json(self._folder / _PLAN, {**plan, "run": run.model_dump(mode="json")})
        except OSError as error:
            raise ConfigError(
                f"out: {str(self.out)!r} cannot be written: {error.strerror or error}"
            ) from None

    def plan(self) -> JSON:
        """Return the plan that was begun; empty where none was."""
        return read_json_object(self._folder / _PLAN)

    def check(self, run: RunConfig, plan: JSON, note: Note) -> None:
        """Check that what was begun is what is asked for.

        Raises:
            ConfigError: settings, rows or folds have changed.
        """
        before = self.plan()
        names = {"folds": "--folds", "seeds": "--seeds", "group": "--group"}
        changed = [
            f"{option} was {before.get(name)}, is {plan[name]}"
            for name, option in names.items()
            if before.get(name) != plan[name]
        ]
        if changed:
            raise ConfigError(f"--resume: {'; '.join(changed)}. Restore what it was, or start anew (out=...)")
        check_settings(before["run"], run.model_dump(mode="json"), note)
        if before.get("data") != plan["data"]:
            raise ConfigError(
                "--resume: the data has changed since the cross-validation began; it goes on with the same "
                "rows only"
            )
        if plan["ensemble"] and not before.get("ensemble") and any(self._folder.glob(f"{self.name}-*.json")):
            raise ConfigError(
                "--ensemble: was not given before, so the models of finished "
                f"{self.name}s are gone; leave it out, or start anew (out=...)"
            )

    def member_folder(self, number: int) -> Path:
        """Return where the model of a part is kept for the ensemble."""
        return self._folder / f"{self.name}-{number}"

    def write(self, part: Part) -> None:
        """Keep a part.

        Raises:
            OSError: it cannot be written.
        """
        predictions = [prediction_to_json(prediction) for prediction in part.predictions]
        text = json.dumps({**part.to_json(), "predictions": predictions}, ensure_ascii=False)
        write_text(self._folder / f"{self.name}-{part.number}.json", text + "\n", durable=True)

    def read(self, number: int) -> Part | None:
        """Return a part that is finished, or None."""
        values = read_json_object(self._folder / f"{self.name}-{number}.json")
        if not values:
            return None
        predictions = [prediction_from_json(each) for each in values["predictions"]]
        return replace(Part.from_json(values), predictions=predictions)

    def remove_unfinished(self) -> None:
        """Remove what a killed process has left half-written."""
        for path in self.out.glob(f"ensemble.*{PART}"):
            shutil.rmtree(path, ignore_errors=True)

    def clear(self) -> None:
        """Remove the folder: the results are written."""
        remove_folder(self._folder)


def scores_from_json(values: JSON) -> Scores:
    """Return scores whose undefined figures were written as null."""
    baseline = values.get("baseline")
    if baseline:
        values = {**values, "baseline": {**baseline, "values": _with_nan(baseline["values"])}}
    return Scores.from_json({**values, "values": _with_nan(values["values"])})


def _with_nan(figures: JSON) -> JSON:
    return {name: math.nan if value is None else value for name, value in figures.items()}


def prediction_to_json(prediction: Prediction) -> JSON:
    """Return a prediction as JSON values, to the last bit; without vectors."""
    value = prediction.value
    kind = "value"
    if isinstance(value, tuple):
        kind = "entities" if value and isinstance(value[0], Entity) else "labels"
    return {
        kind: value,
        "confidence": prediction.confidence,
        "probabilities": prediction.probabilities,
        "tags": prediction.tags,
    }


def prediction_from_json(values: JSON) -> Prediction:
    """Return what `prediction_to_json` wrote."""
    value = values.get("value")
    if "labels" in values:
        value = tuple(values["labels"])
    elif "entities" in values:
        value = tuple(Entity(*each) for each in values["entities"])
    tags = values["tags"]
    return Prediction(
        value,  # type: ignore[arg-type]
        values["confidence"],
        values["probabilities"],
        None if tags is None else tuple((word, tag) for word, tag in tags),
    )
