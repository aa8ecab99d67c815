"""Python code that a model folder brings: named, and never run unless the user says `model_code=trusted`.

config.json names it in `auto_map`. transformers would ask on the terminal whether to run it, or run an
architecture of its own that has the same `model_type`.
"""

from __future__ import annotations

import inspect
import shutil
import sys
from pathlib import Path
from typing import Any

from bertune.errors import ConfigError
from bertune.types import JSON

PORTED = frozenset({"nomic_bert", "eurobert", "gte", "jina_embeddings_v3", "modernbert"})
"""Types that came to the Hub with code and that transformers has taken over since."""
SET_TRUST = "set model_code=trusted"
TRUST_SAVED = "say so: --model-code trusted, or bertune.load(..., model_code='trusted')"
"""How to trust the code of a pretrained folder, and of a saved one."""


def code_of(config: JSON) -> list[str]:
    """Return the classes that config.json wants to be run, such as "modeling_bert.JinaBertModel"."""
    auto_map = config.get("auto_map")
    if not isinstance(auto_map, dict):
        return []
    return sorted(
        {
            str(place)
            for name, place in auto_map.items()
            if name.startswith("AutoModel") or name == "AutoConfig"
        }
    )


def check_code(path: Path, config: JSON, asked: str = "") -> list[str]:
    """Refuse a folder whose model is computed by code that the folder brings; return notes.

    Args:
        path: of the folder.
        config: config.json.
        asked: a sentence on what is there without that code.

    Raises:
        ConfigError: it is.
    """
    classes = code_of(config)
    if not classes:
        return []
    model_type = config.get("model_type")
    if model_type in PORTED:
        return [f"the code that config.json names ({', '.join(classes)}) is not run: transformers' own is"]
    raise ConfigError(
        f"model: {str(path)!r} is computed by Python code of its own (auto_map in config.json: "
        f"{', '.join(classes)}), which bertune does not run by itself; read that code, and if you trust it, "
        f"{SET_TRUST}{asked}"
    )


def places_of_code(hf: Any) -> tuple[JSON, list[Path]]:
    """Return `auto_map` for a saved folder, and the Python files that it needs.

    Args:
        hf: a model of transformers; of one of its own classes there is nothing to save.
    """
    classes = {"AutoConfig": type(hf.config), "AutoModel": type(hf)}
    own = {name: cls for name, cls in classes.items() if not cls.__module__.startswith("transformers.")}
    auto_map = {name: f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}" for name, cls in own.items()}
    folders = {Path(inspect.getfile(sys.modules[cls.__module__])).parent for cls in own.values()}
    files = [file for folder in folders for file in folder.glob("*.py") if file.name != "__init__.py"]
    return auto_map, sorted(files)


def copy_code(files: list[Path], folder: Path) -> None:
    """Copy Python files into a saved folder.

    Raises:
        OSError: a file cannot be read or written.
    """
    for file in files:
        if file.resolve() != (folder / file.name).resolve():
            shutil.copyfile(file, folder / file.name)
