"""Tasks: what a row means, what the head is, how wrong the output was. A file is a task of its name."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_origin

from bertune.errors import ConfigError, TaskNotFound, did_you_mean
from bertune.files import expand_user

if TYPE_CHECKING:
    from bertune.tasks.base.task import Task


def task_names() -> list[str]:
    """Return the names of all tasks that come with bertune."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.ispkg)


def load_task(name: str) -> type[Task]:
    """Return the class of a task.

    Args:
        name: the name of a task, or a Python file with a task of your own.

    Raises:
        TaskNotFound: there is no such task, or no such file.
        ConfigError: the file does not have exactly one task.
    """
    from bertune.tasks.base.task import Task

    if name.endswith(".py"):
        path = Path(expand_user(name)).resolve()
        if not path.is_file():
            raise TaskNotFound(f"no task file {name!r}")
        module_name = f"bertune_task_{path.stem}"
        spec = importlib.util.spec_from_file_location(module_name, path)
        if spec is None or spec.loader is None:
            raise TaskNotFound(f"{name!r} cannot be imported")
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module  # before it runs: dataclasses and pydantic look up modules here
        try:
            spec.loader.exec_module(module)
        except (SyntaxError, ImportError) as error:
            raise ConfigError(f"{name!r} cannot be imported: {error}") from None
    elif name in task_names():
        module = importlib.import_module(f"bertune.tasks.{name}")
    else:
        raise TaskNotFound(
            f"no task {name!r}{did_you_mean(name, task_names())}; "
            f"tasks: {', '.join(task_names())}, or a file such as ./mine.py"
        )
    # In Python 3.10 list[str] is an instance of type.
    classes = [v for v in vars(module).values() if isinstance(v, type) and get_origin(v) is None]
    tasks = [v for v in classes if issubclass(v, Task) and v.__module__ == module.__name__]
    if len(tasks) != 1:
        raise ConfigError(f"{name!r} must hold exactly one subclass of bertune.Task, found {len(tasks)}")
    return tasks[0]
