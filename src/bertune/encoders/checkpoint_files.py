"""What a pretrained folder holds: its settings, and its weights by name. Loads no torch until weights are read: tokenizers ask here too."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, TypeVar

from safetensors import SafetensorError, safe_open

from bertune.errors import ConfigError
from bertune.types import JSON

if TYPE_CHECKING:
    from torch import Tensor

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Files that hold weights, the first found wins; an index names the files of a checkpoint that was cut."""
PINYIN_MAP_FILE, PINYIN_TENSOR_FILE = "config/pinyin_map.json", "config/pinyin2tensor.json"
"""Where ShannonAI's release of ChineseBERT keeps numbers of letters and of syllables."""

_CHINESEBERT_SETTINGS = ("glyph_embedding_dim", "pinyin_map_len")
_CHINESEBERT_WEIGHT = "embeddings.map_fc.weight"
_Found = TypeVar("_Found")


def read_model_config(folder: Path) -> JSON:
    """Read config.json, `model_type` as it ought to be: the releases of ChineseBERT call theirs "bert".

    What is no config.json is empty here and left to transformers, whose message says more.
    """
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {**found, "model_type": "chinesebert"} if _is_chinesebert(found, folder) else found


def is_chinesebert(folder: Path) -> bool:
    """Tell whether a folder holds a ChineseBERT, by its settings, else by its files, else by the names of its weights."""
    return read_model_config(folder).get("model_type") == "chinesebert"


def _is_chinesebert(config: JSON, folder: Path) -> bool:
    if config.get("model_type") == "chinesebert":
        return True
    if config.get("model_type", "bert") != "bert":
        return False
    architectures = config.get("architectures")
    named = isinstance(architectures, list) and any(
        str(name).startswith("ChineseBert") for name in architectures
    )
    if named or any(name in config for name in _CHINESEBERT_SETTINGS) or (folder / PINYIN_MAP_FILE).is_file():
        return True
    if (folder / "bertune.json").is_file():  # we wrote it, so its settings say what it is
        return False
    try:
        return any(name.endswith(_CHINESEBERT_WEIGHT) for name in read_weight_shapes(folder))
    except ConfigError:
        return False  # whoever reads the weights says what is wrong with them


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read all weights of a folder by name.

    Raises:
        ConfigError: there are none, or a file is damaged.
    """
    return _from_files(folder, _read_file)


def read_weight_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Read names and shapes of all weights of a folder, without the weights themselves where the format allows that.

    Raises:
        ConfigError: there are none, or a file is damaged.
    """
    return _from_files(folder, _shapes_in)


def find_weight_files(folder: Path) -> list[Path]:
    """Return the files that hold a folder's weights, an index first; nothing where there are none.

    Raises:
        ConfigError: the index is damaged.
    """
    found = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if found is None:
        return []
    return (
        [found, *_guarded(folder, found, lambda: _parts(folder, found))]
        if found.suffix == ".json"
        else [found]
    )


def _from_files(folder: Path, read: Callable[[Path], Iterable[tuple[str, _Found]]]) -> dict[str, _Found]:
    found = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if found is None:
        raise ConfigError(
            f"model: cannot read the weights in {str(folder)!r}: it holds none of {', '.join(WEIGHT_FILES)}"
        )
    path = found

    def everything() -> dict[str, _Found]:
        files = _parts(folder, path) if path.suffix == ".json" else [path]
        return {name: value for file in files for name, value in read(file)}

    return _guarded(folder, path, everything)


def _parts(folder: Path, index: Path) -> list[Path]:
    return [
        folder / part
        for part in sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    ]


def _guarded(folder: Path, path: Path, work: Callable[[], _Found]) -> _Found:
    try:
        return work()
    except (
        OSError,
        SafetensorError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RuntimeError,
        EOFError,
        UnpicklingError,
    ) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"model: cannot read the weights in {str(folder)!r}: {path.name}: {reason}"
        ) from None


def _read_file(path: Path) -> Iterable[tuple[str, Tensor]]:
    import torch
    from safetensors.torch import load_file

    if path.suffix == ".safetensors":
        tensors: dict[str, Tensor] = load_file(path)
        return tensors.items()
    loaded: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    return [(name, tensor) for name, tensor in loaded.items() if isinstance(tensor, torch.Tensor)]


def _shapes_in(path: Path) -> Iterable[tuple[str, tuple[int, ...]]]:
    if path.suffix != ".safetensors":
        return [(name, tuple(tensor.shape)) for name, tensor in _read_file(path)]
    with safe_open(path, framework="pt") as file:
        return [(name, tuple(file.get_slice(name).get_shape())) for name in file.keys()]  # noqa: SIM118  (not a dict)


def _is_zip(path: Path) -> bool:
    """Tell whether torch can map the file instead of reading it: files before torch 1.6 are no zip archives."""
    with path.open("rb") as file:
        return file.read(2) == b"PK"
