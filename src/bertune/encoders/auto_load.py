"""Folders to encoders of transformers: which of its classes bertune runs, and what is refused instead.

Whatever transformers raises becomes one message. No code of a folder is run unless the user trusts it.
"""

from __future__ import annotations

import inspect
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from bertune.console import quiet_transformers
from bertune.encoders.architectures import VERIFIED, get_head_spec
from bertune.encoders.asked_settings import check_settings, known_settings
from bertune.encoders.auto import AutoEncoder, WithoutPooler, use_ragged_attention
from bertune.encoders.auto_probe import probe, try_longest_row
from bertune.encoders.model_code import places_of_code
from bertune.encoders.tried import TRIED
from bertune.errors import ConfigError, listed
from bertune.files import read_json_object

_SHARED_SOURCES = ("transformers.configuration_utils", "transformers.modeling_rope_utils")
"""Modules that read settings for many architectures."""
_OTHER_INPUTS = {"pixel_values": "images", "input_features": "sound", "input_values": "sound"}
_ACTIVATION_NAMES = {"hidden_act", "hidden_activation", "activation", "activation_function"}
_LARGEST_TRIAL = 4e9
"""Bytes of weights up to which an unknown encoder is built once more, before data is read."""
SEE_TABLE = "give an encoder of texts: docs/encoders.md has the table"


def load_auto_encoder(
    folder: Path, *, trusts_code: bool = False, weights: Mapping[str, Tensor] | None = None
) -> tuple[AutoEncoder, list[str], list[str], dict[str, Tensor]]:
    """Read a pretrained encoder through transformers, weights in fp32.

    Args:
        folder: of the model.
        trusts_code: run the Python code that the folder brings.
        weights: instead of those of the folder, for names that transformers does not know.

    Returns:
        The encoder, weights that the checkpoint lacks, weights of it that are not used, and the pooler.

    Raises:
        ConfigError: the folder's architecture or its weights cannot be read.
    """
    if weights is not None:
        with TemporaryDirectory() as copy:
            _write_copy(folder, Path(copy), weights)
            return load_auto_encoder(Path(copy), trusts_code=trusts_code)
    config = load_hf_config(folder, trusts_code=trusts_code)
    notes = _check(config, folder, trusts_code=trusts_code)
    with quiet_transformers():
        from transformers import AutoModel

        try:
            hf, info = AutoModel.from_pretrained(
                str(folder),
                config=config,
                dtype=torch.float32,
                local_files_only=True,
                trust_remote_code=trusts_code,
                output_loading_info=True,
            )
        except MemoryError:
            raise
        except Exception as error:  # remote code and damaged files raise anything
            raise ConfigError(
                f"model: cannot read the weights in {str(folder)!r}: {_reason(error, folder)}"
            ) from None
    missing = sorted(info["missing_keys"])
    if len(missing) == len(hf.state_dict()):
        raise ConfigError(
            f"model: {str(folder)!r} holds no weight of a {config.model_type} encoder; is config.json "
            "its own?"
        )
    if info["mismatched_keys"]:
        raise ConfigError(
            f"model: weights in {str(folder)!r} have other shapes than its config.json says: "
            f"{listed(map(str, info['mismatched_keys']), 3)}"
        )
    has_pooler = not any(name.startswith("pooler") for name in missing)
    kept, pooler = _take_pooler(hf)
    missing = [name for name in missing if not name.startswith("pooler")]
    encoder = _wrap(hf, notes)
    encoder.kept_weights = kept if has_pooler else {}
    return encoder, missing, sorted(info["unexpected_keys"]), pooler if has_pooler else {}


def build_auto_encoder(folder: Path, *, trusts_code: bool = False) -> AutoEncoder:
    """Build an encoder without weights, to be filled from a saved model in `folder`.

    Raises:
        ConfigError: the folder's architecture cannot be read.
    """
    config = load_hf_config(folder, trusts_code=trusts_code)
    notes = _check(config, folder, trusts_code=trusts_code)
    with quiet_transformers():
        from transformers import AutoModel

        try:
            hf = AutoModel.from_config(config, dtype=torch.float32, trust_remote_code=trusts_code)
        except MemoryError:
            raise
        except Exception as error:
            raise ConfigError(
                f"model: config.json in {str(folder)!r} describes no encoder: {_reason(error, folder)}"
            ) from None
    _take_pooler(hf)
    return _wrap(hf, notes)


def _write_copy(folder: Path, copy: Path, weights: Mapping[str, Tensor]) -> None:
    """Write a folder that transformers reads, with other weights."""
    for file in (folder / "config.json", *folder.glob("*.py")):
        shutil.copyfile(file, copy / file.name)
    tensors = {name: tensor.contiguous().clone() for name, tensor in weights.items()}  # none are shared
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})


def check_auto_settings(folder: Path, *, trusts_code: bool = False) -> list[str]:
    """Refuse an architecture or settings of it that are not run; return notes.

    Raises:
        ConfigError: see `load_auto_encoder`.
    """
    return _check(load_hf_config(folder, trusts_code=trusts_code), folder, trusts_code=trusts_code)


def check_auto_folder(folder: Path, *, trusts_code: bool = False) -> None:
    """Refuse a folder that transformers or bertune cannot run, without reading its weights.

    A type that nobody has tried is built with random weights, if it is not too large, and tried.

    Raises:
        ConfigError: see `load_auto_encoder`.
    """
    config = load_hf_config(folder, trusts_code=trusts_code)
    _check(config, folder, trusts_code=trusts_code)
    size = sum(file.stat().st_size for pattern in ("*.safetensors", "*.bin") for file in folder.glob(pattern))
    if (trusts_code or config.model_type not in TRIED | VERIFIED) and size < _LARGEST_TRIAL:
        encoder = build_auto_encoder(folder, trusts_code=trusts_code)
        try_longest_row(encoder.train(False))


def load_hf_config(folder: Path, *, trusts_code: bool = False) -> Any:
    """Read the config.json of a model folder.

    Raises:
        ConfigError: transformers does not know what it describes.
    """
    from transformers import AutoConfig

    with quiet_transformers():
        try:
            return AutoConfig.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=trusts_code
            )
        except Exception as error:  # transformers' checks raise errors of several libraries
            raise ConfigError(
                f"model: config.json in {str(folder)!r} is not one that transformers knows: "
                f"{_reason(error, folder)}"
            ) from None


def reason_to_refuse(config: Any) -> str:
    """Say why bertune cannot run an architecture of transformers, by its classes alone; "" where it may."""
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    if getattr(config, "quantization_config", None):
        return "its weights are quantized, and bertune computes with floating-point weights"
    if type(config) not in MODEL_MAPPING:
        return f"transformers' AutoModel has no model of type {config.model_type!r}"
    if getattr(config, "is_encoder_decoder", False):
        return "it is an encoder with a decoder"
    try:
        hf_class = model_class(config)
    except Exception as error:
        return f"transformers cannot import it: {first_line(error)}"
    parts = {"text_config", "vision_config", "audio_config", "vision_encoder_config"}
    if parts & set(getattr(config, "sub_configs", ()) or ()):
        return "it is several models in one, for more than texts"
    main_input = getattr(hf_class, "main_input_name", "input_ids")
    parameters = inspect.signature(hf_class.forward).parameters
    if main_input != "input_ids" or "input_ids" not in parameters:
        return f"it reads {_OTHER_INPUTS.get(main_input, main_input)}, not the ids of tokens"
    more = [
        p.name
        for p in list(parameters.values())[1:]
        if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    more = [name for name in more if name != "input_ids"]
    return f"it also needs {listed(more)}" if more else ""


def _check(config: Any, folder: Path, *, trusts_code: bool) -> list[str]:
    """Refuse an architecture, or settings of it that would be ignored; return notes."""
    if trusts_code:
        return []
    reason = reason_to_refuse(config)
    if reason:
        raise ConfigError(
            f"model: {str(folder)!r} holds a model of type {config.model_type!r}, which bertune does not "
            f"run: {reason}; {SEE_TABLE}"
        )
    if (folder / "bertune.json").is_file():  # was checked when it was trained
        return []
    written = read_json_object(folder / "config.json")
    notes = []
    if "model_type" not in written:
        notes = [f"config.json names no model_type; by the folder's name it is taken for {config.model_type}"]
    return notes + check_settings(written, settings_read_by(config), f"transformers' {config.model_type}")


def settings_read_by(config: Any) -> frozenset[str]:
    """Return the words of all code that may read a setting of this architecture."""
    hf_class = model_class(config)
    modules = [sys.modules[c.__module__] for c in (*type(config).__mro__, *hf_class.__mro__) if c.__module__]
    names = {m.__name__: m for m in modules if m.__name__.startswith("transformers.models.")}
    __import__(_SHARED_SOURCES[1])
    shared = [sys.modules[name] for name in _SHARED_SOURCES]
    words = known_settings(inspect.getsource(module) for module in (*names.values(), *shared))
    if "position_embedding_type" not in _words_of(hf_class):
        words -= {"position_embedding_type"}  # kept in the configuration, and computed by nobody
    return words


def _words_of(hf_class: type) -> frozenset[str]:
    return known_settings([inspect.getsource(sys.modules[hf_class.__module__])])


def model_class(config: Any) -> Any:
    """Return the class that AutoModel takes; of several the one in `architectures`, else the first."""
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    classes = MODEL_MAPPING[type(config)]
    if not isinstance(classes, tuple | list):
        return classes
    by_name = {cls.__name__: cls for cls in classes}
    named = next((name for name in config.architectures or () if name in by_name), classes[0].__name__)
    config.architectures = config.architectures or [named]  # AutoModel fails without
    return by_name[named]


def _wrap(hf: Any, notes: list[str]) -> AutoEncoder:
    """Put a model of transformers behind the Encoder protocol, after a trial with three short rows."""
    auto_map, files = places_of_code(hf)
    encoder = AutoEncoder(hf if auto_map else use_ragged_attention(hf))
    encoder.code_map, encoder.code_files = auto_map, files
    if auto_map:
        encoder.use_own_code()
    verified = not auto_map and encoder.model_type in VERIFIED
    unknown = bool(auto_map) or encoder.model_type not in TRIED
    encoder.notes = [*notes, *([] if verified else probe(encoder, gradients=unknown))]
    return encoder


def _take_pooler(hf: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Remove the encoder's pooler, since the head has its own.

    Returns:
        All its weights by their names in the encoder; and `weight` and `bias` of a hidden layer for the head.
    """
    spec = get_head_spec(hf.config.model_type)
    for_head: dict[str, Tensor] = {}
    if not isinstance(getattr(hf, "pooler", None), torch.nn.Module):
        return {}, {}
    if spec is not None and spec.pretrained_pooler:
        layer = hf.get_submodule(spec.pretrained_pooler)
        for_head = {"weight": layer.weight.detach().clone(), "bias": layer.bias.detach().clone()}
    kept = {f"pooler.{name}": tensor.detach().clone() for name, tensor in hf.pooler.state_dict().items()}
    hf.pooler = WithoutPooler()
    return kept, for_head


def _reason(error: Exception, folder: Path) -> str:
    """Say what transformers has raised; an activation that it lacks is only a KeyError there."""
    from transformers.activations import ACT2FN

    config = read_json_object(folder / "config.json")
    for name in _ACTIVATION_NAMES & config.keys():
        value = config[name]
        if value is not None and not (isinstance(value, str) and value in ACT2FN):
            return f"{name}={value!r}, an activation that nobody here computes; known: {', '.join(ACT2FN)}"
    return first_line(error)


def first_line(error: Exception) -> str:
    """Return the beginning of an error's message, or its class.

    pydantic's first line ends in a colon; a message that begins with a printed module says more in its last.
    """
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    if lines[0].endswith("("):
        return f"{lines[0]}...{lines[-1]}"
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
