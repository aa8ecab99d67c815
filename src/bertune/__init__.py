"""bertune fine-tunes BERT-family encoders.

```python
import bertune

result = bertune.train({"task": "classify", "data": {"train": "reviews.csv"}})
bertune.load(result.folder).predict(["What a day!"])
```

Importing it loads neither torch nor transformers; they are loaded when something needs them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bertune.artifact.read import load
    from bertune.commands.bench import bench
    from bertune.commands.calibrate import calibrate
    from bertune.commands.compare import compare
    from bertune.commands.convert import Conversion, convert
    from bertune.commands.crossval import crossval
    from bertune.commands.ensemble import ensemble
    from bertune.commands.evaluate import Evaluation, evaluate
    from bertune.commands.predict import predict
    from bertune.commands.train import train
    from bertune.commands.trim import TrimResult, trim
    from bertune.commands.tune import TuneResult, tune
    from bertune.errors import (
        ArtifactError,
        BertuneError,
        ConfigError,
        DataError,
        Interrupted,
        MissingExtra,
        TaskNotFound,
        TrainingError,
    )
    from bertune.inference.comparison import Comparison
    from bertune.inference.pipeline import Pipeline
    from bertune.selection.bench.result import BenchResult
    from bertune.selection.crossval import CrossvalResult
    from bertune.selection.out_of_fold import OutOfFold, read_out_of_fold
    from bertune.tasks import load_task, task_names
    from bertune.tasks.base.calibration import CalibrationReport
    from bertune.tasks.base.task import Task
    from bertune.training.build import build_model
    from bertune.training.listener import Listener, StopTraining
    from bertune.training.run import TrainResult
    from bertune.training.setup import train_on
    from bertune.types import Example, Location, Prediction, Row, Scores

__version__ = "0.1.0"

_MODULES = {
    "ArtifactError": "errors",
    "BenchResult": "selection.bench.result",
    "BertuneError": "errors",
    "CalibrationReport": "tasks.base.calibration",
    "Comparison": "inference.comparison",
    "ConfigError": "errors",
    "Conversion": "commands.convert",
    "CrossvalResult": "selection.crossval",
    "DataError": "errors",
    "Evaluation": "commands.evaluate",
    "Example": "types",
    "Interrupted": "errors",
    "Listener": "training.listener",
    "Location": "types",
    "MissingExtra": "errors",
    "OutOfFold": "selection.out_of_fold",
    "Pipeline": "inference.pipeline",
    "Prediction": "types",
    "Row": "types",
    "Scores": "types",
    "StopTraining": "training.listener",
    "Task": "tasks.base.task",
    "TaskNotFound": "errors",
    "TrainResult": "training.run",
    "TrainingError": "errors",
    "TrimResult": "commands.trim",
    "TuneResult": "commands.tune",
    "bench": "commands.bench",
    "build_model": "training.build",
    "calibrate": "commands.calibrate",
    "compare": "commands.compare",
    "convert": "commands.convert",
    "crossval": "commands.crossval",
    "ensemble": "commands.ensemble",
    "evaluate": "commands.evaluate",
    "load": "artifact.read",
    "load_task": "tasks",
    "predict": "commands.predict",
    "read_out_of_fold": "selection.out_of_fold",
    "task_names": "tasks",
    "train": "commands.train",
    "train_on": "training.setup",
    "trim": "commands.trim",
    "tune": "commands.tune",
}
"""Public names, and the modules inside `bertune` that have them; imported when first used."""

__all__ = [
    "ArtifactError",
    "BenchResult",
    "BertuneError",
    "CalibrationReport",
    "Comparison",
    "ConfigError",
    "Conversion",
    "CrossvalResult",
    "DataError",
    "Evaluation",
    "Example",
    "Interrupted",
    "Listener",
    "Location",
    "MissingExtra",
    "OutOfFold",
    "Pipeline",
    "Prediction",
    "Row",
    "Scores",
    "StopTraining",
    "Task",
    "TaskNotFound",
    "TrainResult",
    "TrainingError",
    "TrimResult",
    "TuneResult",
    "bench",
    "build_model",
    "calibrate",
    "compare",
    "convert",
    "crossval",
    "ensemble",
    "evaluate",
    "load",
    "load_task",
    "predict",
    "read_out_of_fold",
    "task_names",
    "train",
    "train_on",
    "trim",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'bertune' has no attribute {name!r}")
    return getattr(importlib.import_module(f"bertune.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
