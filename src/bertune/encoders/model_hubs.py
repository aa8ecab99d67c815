"""Models of the Hub and of ModelScope: only the files that bertune reads are downloaded."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from bertune.encoders.packaged import PACKAGED_MODELS
from bertune.errors import ConfigError, MissingExtra, did_you_mean

MODELSCOPE = "modelscope:"
"""How the names of models of ModelScope begin."""
_SMALL_FILES = ["*.json", "*.txt", "*.model", "*.spm", "*run.yaml", "*_Dense/pytorch_model.bin"]


def download_model(name: str, *, with_code: bool) -> Path:
    """Return the folder of a model of the Hub, or of ModelScope for `modelscope:ORG/NAME`.

    The files of settings, tokenizer and weights are downloaded, to where the hub's own package keeps them:
    safetensors, or where there are none pytorch_model.bin.

    Args:
        name: the model.
        with_code: whether Python files are downloaded too.

    Raises:
        MissingExtra: the package of ModelScope is not installed.
        ConfigError: there is no such model, or the hub cannot be reached.
    """
    small_files = [*_SMALL_FILES, *(["*.py"] if with_code else [])]
    if name.startswith(MODELSCOPE):
        return _from_modelscope(name, small_files)
    return _from_hub(name, small_files)


def _with_weights(download: Callable[[list[str]], str], small_files: list[str]) -> Path:
    """Download the small files and the safetensors; where there are none, the older form of weights."""
    folder = Path(download([*small_files, "*.safetensors"]))
    if not list(folder.glob("*.safetensors")):
        folder = Path(download([*small_files, "pytorch_model*.bin"]))
    return folder


def _from_hub(name: str, small_files: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return _with_weights(lambda files: snapshot_download(name, allow_patterns=files), small_files)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ConfigError(
            f"model: {name!r} is no folder here and cannot be had from the Hub: "
            f"{_reason(error)}{_advice(name)}"
        ) from None


def _advice(name: str) -> str:
    """Return what to type instead, where a packaged encoder is meant."""
    if name.split("/")[-1] == "multilingual-e5-small":
        return "; e5-small is this encoder, from a package"
    return did_you_mean(name, PACKAGED_MODELS)


def _from_modelscope(name: str, small_files: list[str]) -> Path:
    model = name.removeprefix(MODELSCOPE)
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", model) is None:
        raise ConfigError(f"model: {name!r} must be {MODELSCOPE}ORG/NAME, as ModelScope writes it")
    try:
        from modelscope import snapshot_download
    except ImportError:
        raise MissingExtra("modelscope", "modelscope", f"the model {name!r}") from None

    def download(files: list[str], **options: bool) -> str:
        return str(snapshot_download(model, allow_patterns=files, **options))

    try:
        folder = _with_weights(download, small_files)
    except Exception as error:  # its own errors have no root but Exception
        kept = _kept_copy(download, small_files)
        if kept is None:
            raise ConfigError(f"model: {name!r} cannot be had from ModelScope: {_reason(error)}") from None
        folder = kept
    if not (folder / "config.json").is_file() and not (folder / "modules.json").is_file():
        raise ConfigError(f"model: {name!r}: holds no config.json; give the name of a pretrained encoder")
    return folder


def _kept_copy(download: Callable[..., str], small_files: list[str]) -> Path | None:
    """Return what an earlier call has downloaded, where ModelScope cannot be reached; None without a copy."""
    try:
        folder = _with_weights(lambda files: download(files, local_files_only=True), small_files)
    except Exception:
        return None
    has_weights = any(path.suffix in {".safetensors", ".bin"} for path in folder.rglob("*"))
    return folder if has_weights else None


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
