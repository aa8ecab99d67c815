"""What a row means, what the head is, how wrong it was. The name of a file here is the name of a task."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_origin

from bertune.errors import ConfigError, TaskNotFound, did_you_mean

if TYPE_CHECKING:
    from bertune.tasks.base.task import Task


def task_names() -> list[str]:
    """Return the names of all tasks that come with bertune."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.ispkg)


def load_task(name: str) -> type[Task]:
    """Return a task by name, or from a Python file of yours.

    Raises:
        TaskNotFound: there is no such task, or no such file.
        ConfigError: the file holds no task, or more than one.
    """
    from bertune.tasks.base.task import Task

    if name.endswith(".py"):
        path = Path(name).resolve()
        if not path.is_file():
            raise TaskNotFound(f"no task file {name!r}")
        module_name = f"bertune_task_{path.stem}"
        spec = importlib.util.spec_from_file_location(module_name, path)
        if spec is None or spec.loader is None:
            raise TaskNotFound(f"{name!r} cannot be imported")
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = (
            module  # before it runs: dataclasses and pydantic look a class's module up here
        )
        try:
            spec.loader.exec_module(module)
        except (SyntaxError, ImportError) as error:
            raise ConfigError(f"{name!r} cannot be imported: {error}") from None
    elif name in task_names():
        module = importlib.import_module(f"bertune.tasks.{name}")
    else:
        raise TaskNotFound(
            f"no task {name!r}{did_you_mean(name, task_names())}; tasks: {', '.join(task_names())}, or a file such as ./mine.py"
        )
    classes = [
        v for v in vars(module).values() if isinstance(v, type) and get_origin(v) is None
    ]  # 3.10 takes list[str] for a class
    found = [v for v in classes if issubclass(v, Task) and v.__module__ == module.__name__]
    if len(found) != 1:
        raise ConfigError(f"{name!r} must hold exactly one subclass of bertune.Task, found {len(found)}")
    return found[0]
