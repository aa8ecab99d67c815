"""bertune fine-tunes BERT-family encoders.

```python
import bertune

trained = bertune.train({"task": "classify", "data": {"train": "reviews.csv"}})
bertune.load(trained.folder).predict(["What a day!"])
```

Importing this loads neither torch nor transformers; they are loaded by what needs them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bertune.artifact.read import load
    from bertune.commands.evaluate import evaluate
    from bertune.commands.predict import predict
    from bertune.commands.train import train
    from bertune.errors import (
        ArtifactError,
        BertuneError,
        ConfigError,
        DataError,
        MissingExtra,
        TaskNotFound,
        TrainingError,
    )
    from bertune.inference.pipeline import Pipeline
    from bertune.tasks import load_task, task_names
    from bertune.tasks.base.task import Task
    from bertune.types import Example, Location, Prediction, Row, Scores

__version__ = "0.1.0"

_HOMES = {
    "ArtifactError": "errors",
    "BertuneError": "errors",
    "ConfigError": "errors",
    "DataError": "errors",
    "Example": "types",
    "Interrupted": "errors",
    "Location": "types",
    "MissingExtra": "errors",
    "Pipeline": "inference.pipeline",
    "Prediction": "types",
    "Row": "types",
    "Scores": "types",
    "Task": "tasks.base.task",
    "TaskNotFound": "errors",
    "TrainingError": "errors",
    "evaluate": "commands.evaluate",
    "load": "artifact.read",
    "load_task": "tasks",
    "predict": "commands.predict",
    "task_names": "tasks",
    "train": "commands.train",
}

__all__ = [
    "ArtifactError",
    "BertuneError",
    "ConfigError",
    "DataError",
    "Example",
    "Interrupted",
    "Location",
    "MissingExtra",
    "Pipeline",
    "Prediction",
    "Row",
    "Scores",
    "Task",
    "TaskNotFound",
    "TrainingError",
    "evaluate",
    "load",
    "load_task",
    "predict",
    "task_names",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'bertune' has no attribute {name!r}")
    return getattr(importlib.import_module(f"bertune.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
