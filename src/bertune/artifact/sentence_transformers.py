"""Reads the folders of sentence-transformers as plain data; the package itself is not needed.

| file | what |
|---|---|
| modules.json | the modules in order, each with its class and its sub folder |
| sentence_bert_config.json | beside the encoder: most tokens of a text; from 5.4 on its inputs and outputs |
| 1_Pooling/config.json | how token vectors become one |
| 2_Dense/config.json, model.safetensors | a linear layer on that vector, and its activation |
| config_sentence_transformers.json | prompts, similarity, truncation |

Two layouts are read: the legacy one (up to 5.3) and the new one (from 5.4 on). The legacy one is written, as
of 3.0, which later versions read too. A folder whose vectors bertune would compute differently is refused:
otherwise a skipped module would give wrong vectors, and nobody would notice.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor

from bertune.artifact.sentence_modules import (
    ACTIVATIONS,
    POOLINGS,
    Dense,
    SentenceModules,
    check_dense,
    check_path,
    check_pooling,
    check_positive,
    check_usage,
    unsupported,
)
from bertune.errors import ArtifactError, listed
from bertune.types import JSON

_MODULES = ("Transformer", "Pooling", "Dense", "Normalize")
_PACKAGES = (
    "sentence_transformers.models",
    "sentence_transformers.base.modules",
    "sentence_transformers.sentence_transformer.modules",
)
"""Where versions of sentence-transformers have the classes of modules."""
_ENCODERS = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
_ENCODER_FILES = tuple(f"sentence_{name}_config.json" for name in _ENCODERS)  # early versions had one a model
_ENCODER_ARGUMENTS = (
    "model_args",
    "model_kwargs",
    "config_args",
    "config_kwargs",
    "tokenizer_args",
    "processor_kwargs",
)
_HARMLESS_ARGUMENTS = (
    "trust_remote_code",
    "attn_implementation",
    "torch_dtype",
    "dtype",
    "add_pooling_layer",
)
"""Arguments that change how an encoder computes, not what."""
_SENTENCE_EMBEDDING = "sentence_embedding"
"""The input and output of Dense and Normalize."""
_TEXT_MODALITY = {"method": "forward", "method_output_name": "last_hidden_state"}
"""How an encoder reads texts, from 5.4 on."""
_NO_LIMIT = 10**9  # transformers writes 10**30 for a tokenizer without a limit

T = TypeVar("T")


def is_sentence_transformers_folder(folder: str | Path) -> bool:
    """Tell whether sentence-transformers saved the folder; `read_modules` says whether bertune can use it."""
    return (Path(folder) / "modules.json").is_file()


def is_cross_encoder_folder(folder: Path) -> bool:
    """Tell whether a folder of sentence-transformers predicts pairs of texts, and so makes no vectors.

    Raises:
        ArtifactError: its file is damaged.
    """
    settings = _Settings.read(folder / "config_sentence_transformers.json", required=False)
    return settings.values.get("model_type") == "CrossEncoder"


def read_modules(folder: str | Path) -> SentenceModules:
    """Read a folder of sentence-transformers, in either layout, except its encoder and tokenizer.

    Raises:
        ArtifactError: a file is missing or damaged, or asks for something that bertune does not compute, such
            as another kind of module or pooling; the message names the file.
    """
    folder = Path(folder)
    (_, encoder), (_, pooling), *others = _read_entries(folder)
    max_length, do_lower_case = _read_encoder_settings(folder / encoder)
    mode, include_prompt, dim = _read_pooling(folder / pooling / "config.json")
    dense = tuple(_read_dense(folder / path) for kind, path in others if kind == "Dense")
    check_dense(dense, dim, folder / "modules.json")
    normalize = [path for kind, path in others if kind == "Normalize"]
    for path in normalize:
        _check_normalize(folder / path / "config.json")
    prompts, default_prompt_name, similarity, truncate_dim = _read_usage(
        folder / "config_sentence_transformers.json"
    )
    return SentenceModules(
        transformer_path=encoder,
        max_length=max_length,
        do_lower_case=do_lower_case,
        pooling=mode,
        include_prompt=include_prompt,
        dense=dense,
        normalize=bool(normalize),
        truncate_dim=truncate_dim,
        prompts=prompts,
        default_prompt_name=default_prompt_name,
        similarity_fn_name=similarity,
    )


@dataclass(frozen=True)
class _Settings:
    """A JSON object, and the file that holds it."""

    file: Path
    values: JSON

    @classmethod
    def read(cls, file: Path, *, required: bool = True) -> _Settings:
        """Read a file. A missing file that is not required has no settings."""
        values = _read_json(file) if required or file.exists() else {}
        if not isinstance(values, dict):
            raise ArtifactError(
                f"{file}: damaged: is {type(values).__name__}, not an object; get the file again"
            )
        return cls(file, values)

    def get(self, name: str, kind: type[T], default: T) -> T:
        """Return a value, or `default` where it is missing or null."""
        value = self.values.get(name)
        if value is None:
            return default
        if type(value) is not kind:
            raise ArtifactError(
                f"{self.file}: {name} is {value!r}, must be of type {kind.__name__}; mend the file"
            )
        return value

    def positive(self, name: str) -> int | None:
        """Return a whole number above 0, or None where it is missing."""
        value = None if self.values.get(name) is None else self.get(name, int, 0)
        check_positive(name, value, self.file)
        return value

    def only(self, name: str, *allowed: object) -> None:
        """Refuse a value with which sentence-transformers computes other vectors than bertune."""
        value = self.values.get(name)
        if value is not None and value not in allowed:
            raise unsupported(self.file, f"{name} is {value!r}, bertune computes {listed(allowed)} only")

    def no_others(self, names: Collection[str]) -> None:
        """Refuse settings that bertune does not know: they may change the vectors."""
        unknown = [name for name in self.values if name not in names]
        if unknown:
            raise unsupported(
                self.file,
                f"has settings that bertune does not know: {listed(unknown)}; known are {listed(names, 20)}",
            )


def _read_entries(folder: Path) -> list[tuple[str, str]]:
    """Return kind and sub folder of each module, in order.

    These are Transformer, Pooling, any number of Dense, and at most one Normalize.
    """
    file = folder / "modules.json"
    listing = _read_json(file)
    if not isinstance(listing, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("type"), str) for entry in listing
    ):
        raise ArtifactError(f"{file}: damaged: not a list of modules, each with its type; get the file again")
    entries = [(_module_kind(entry["type"], file), entry.get("path")) for entry in listing]
    for _, path in entries:
        check_path(path, file)
    kinds = [kind for kind, _ in entries]
    dense, normalize = ["Dense"] * kinds.count("Dense"), ["Normalize"] * ("Normalize" in kinds)
    if kinds != ["Transformer", "Pooling", *dense, *normalize]:
        raise unsupported(
            file,
            f"has the modules {kinds}, bertune computes Transformer, Pooling, any Dense, "
            "at most one Normalize",
        )
    return entries


def _module_kind(class_path: str, file: Path) -> str:
    """Return Transformer, Pooling, Dense or Normalize for a class, in whichever package a version has it."""
    package, _, kind = class_path.rpartition(".")
    package = package.removesuffix(f".{kind}").removesuffix(f".{kind.lower()}")
    if kind not in _MODULES or package not in _PACKAGES:
        raise unsupported(
            file,
            f"has the module {class_path!r}, bertune computes {listed(_MODULES)} "
            "of sentence-transformers only",
        )
    return kind


def _read_encoder_settings(folder: Path) -> tuple[int | None, bool]:
    """Return the most tokens of a text, and whether texts are lower-cased."""
    files = [_Settings.read(folder / name, required=False) for name in _ENCODER_FILES]
    # sentence-transformers too takes the first that is not empty
    settings = next((settings for settings in files if settings.values), files[0])
    lengths = ("max_seq_length", "do_lower_case")
    tasks = ("transformer_task", "modality_config", "module_output_name", "processing_kwargs", "unpad_inputs")
    multi_vector = ("query_length", "document_length", "query_expansion")
    settings.no_others([*lengths, *tasks, *multi_vector, *_ENCODER_ARGUMENTS])
    settings.only("transformer_task", "feature-extraction")
    settings.only("module_output_name", "token_embeddings")
    settings.only("processing_kwargs", {})
    for name in multi_vector:
        settings.only(name)
    arguments = [
        f"{name}.{key}"
        for name in _ENCODER_ARGUMENTS
        for key in settings.get(name, dict, {})
        if key not in _HARMLESS_ARGUMENTS
    ]
    if arguments:
        raise unsupported(settings.file, f"has arguments that bertune does not take: {listed(arguments)}")
    texts = settings.get("modality_config", dict, {"text": _TEXT_MODALITY}).get("text")
    if texts != _TEXT_MODALITY:
        raise unsupported(
            settings.file, f"modality_config takes texts by {texts!r}, bertune by {_TEXT_MODALITY} only"
        )
    max_length = settings.positive("max_seq_length") or _read_tokenizer_length(folder)
    return max_length, settings.get("do_lower_case", bool, False)


def _read_tokenizer_length(folder: Path) -> int | None:
    """Return the most tokens by tokenizer and encoder, for folders without `max_seq_length`."""
    sources = (("tokenizer_config.json", "model_max_length"), ("config.json", "max_position_embeddings"))
    values = [_Settings.read(folder / name, required=False).values.get(key) for name, key in sources]
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    return min((int(number) for number in numbers if 0 < number < _NO_LIMIT), default=None)


def _read_pooling(file: Path) -> tuple[str, bool, int]:
    """Return the pooling, whether the tokens of prompts count, and the width of a token vector."""
    settings = _Settings.read(file)
    settings.no_others(
        [
            "word_embedding_dimension",
            "embedding_dimension",
            "pooling_mode",
            "include_prompt",
            *POOLINGS.values(),
        ]
    )
    modes: Any = settings.values.get("pooling_mode")
    if modes is None:
        modes = [mode for mode, flag in POOLINGS.items() if settings.get(flag, bool, False)] or ["mean"]
    mode = check_pooling(modes[0] if isinstance(modes, list) and len(modes) == 1 else modes, file)
    dim = settings.positive("embedding_dimension") or settings.positive("word_embedding_dimension")
    if dim is None:
        raise ArtifactError(
            f"{file}: damaged: has neither embedding_dimension nor word_embedding_dimension; "
            "get the file again"
        )
    return mode, settings.get("include_prompt", bool, True), dim


def _read_dense(folder: Path) -> Dense:
    settings = _Settings.read(folder / "config.json")
    sizes, endpoints = ("in_features", "out_features"), ("module_input_name", "module_output_name")
    settings.no_others([*sizes, "bias", "activation_function", *endpoints, "use_residual"])
    settings.only("use_residual", False)
    for name in endpoints:
        settings.only(name, _SENTENCE_EMBEDDING)
    class_path = settings.get("activation_function", str, ACTIVATIONS["tanh"])
    activations = {
        path: name
        for name, full_path in ACTIVATIONS.items()
        for path in (full_path, f"torch.nn.{full_path.rpartition('.')[2]}")
    }
    if class_path not in activations:
        raise unsupported(
            settings.file,
            f"activation_function is {class_path!r}, bertune computes {listed(ACTIVATIONS.values())} only",
        )
    file, weights = _read_weights(folder)
    out_features, in_features = settings.positive("out_features"), settings.positive("in_features")
    expected: dict[str, tuple[int | None, ...]] = {"linear.weight": (out_features, in_features)}
    if settings.get("bias", bool, True):
        expected["linear.bias"] = (out_features,)
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if shapes != expected:
        raise ArtifactError(
            f"{file}: holds {shapes}, but config.json beside it says {expected}; get both files again"
        )
    bias = weights["linear.bias"].float() if "linear.bias" in weights else None
    return Dense(weights["linear.weight"].float(), bias, activations[class_path])


def _check_normalize(file: Path) -> None:
    """Refuse a Normalize of anything but the sentence vector; the legacy layout has no such file."""
    settings = _Settings.read(file, required=False)
    settings.no_others(["module_input_name", "module_output_name"])
    for name in settings.values:
        settings.only(name, _SENTENCE_EMBEDDING)


def _read_usage(file: Path) -> tuple[dict[str, str], str | None, str | None, int | None]:
    """Return prompts, the name of the default prompt, similarity and `truncate_dim`."""
    settings = _Settings.read(file, required=False)
    settings.only("model_type", "SentenceTransformer")
    prompts = {name: "" if text is None else text for name, text in settings.get("prompts", dict, {}).items()}
    default_prompt_name = settings.get("default_prompt_name", str, "") or None
    similarity = settings.get("similarity_fn_name", str, "") or None
    check_usage(prompts, default_prompt_name, similarity, file)
    return prompts, default_prompt_name, similarity, settings.positive("truncate_dim")


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{file}: missing; give a complete folder of sentence-transformers") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{file}: damaged: {error}; get the file again") from None


def _read_weights(folder: Path) -> tuple[Path, dict[str, Tensor]]:
    """Return the file of a module's weights, and the weights."""
    files = [folder / name for name in ("model.safetensors", "pytorch_model.bin")]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise ArtifactError(
            f"{folder}: holds neither model.safetensors nor pytorch_model.bin; "
            "get the weights of this module again"
        )
    try:
        weights: Any = (
            load_file(file)
            if file.suffix == ".safetensors"
            else torch.load(file, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # a damaged pickle can raise anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ArtifactError(f"{file}: damaged: {reason}; get the file again") from None
    if not isinstance(weights, dict) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise ArtifactError(f"{file}: damaged: holds no tensors by name; get the file again")
    return file, weights
