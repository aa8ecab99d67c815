"""The folder formats of sentence-transformers, read and written as plain data; the package itself is not needed.

| file | what |
|---|---|
| modules.json | the modules in order, each with its class and its sub folder |
| sentence_bert_config.json | beside the encoder: its longest text; from 5.4 on what it takes and gives |
| 1_Pooling/config.json | how token vectors become one |
| 2_Dense/config.json, model.safetensors | a linear layer on that vector, and its activation |
| config_sentence_transformers.json | prompts, similarity, truncation |

Read are the legacy layout (up to 5.3) and the new one (from 5.4 on). Written is the legacy one, as of 3.0, which later versions read too.
Whatever bertune would compute otherwise is refused: a module that is left out gives other vectors, and nobody would notice.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bertune.errors import ArtifactError, listed
from bertune.types import JSON

POOLINGS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
}
"""Poolings of bertune, and their names in the legacy layout."""

SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")

ACTIVATIONS = {
    "tanh": "torch.nn.modules.activation.Tanh",
    "identity": "torch.nn.modules.linear.Identity",
    "relu": "torch.nn.modules.activation.ReLU",
    "gelu": "torch.nn.modules.activation.GELU",
    "sigmoid": "torch.nn.modules.activation.Sigmoid",
    "silu": "torch.nn.modules.activation.SiLU",
}
"""Activations of a dense layer, and their classes, made without arguments (so gelu is the exact one)."""

_OTHER_POOLINGS = {
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
_LAYOUT = "3.0.0"  # the first version that reads all we write: a similarity, and a Dense in model.safetensors
_KINDS = ("Transformer", "Pooling", "Dense", "Normalize")
_HOMES = (
    "sentence_transformers.models",
    "sentence_transformers.base.modules",
    "sentence_transformers.sentence_transformer.modules",
)
_ENCODERS = (
    "bert",
    "roberta",
    "distilbert",
    "camembert",
    "albert",
    "xlm-roberta",
    "xlnet",
)  # once each had a file of its own
_ENCODER_FILES = tuple(f"sentence_{name}_config.json" for name in _ENCODERS)
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
)  # how, not what
_VECTOR = "sentence_embedding"  # what Dense and Normalize take and give
_TEXTS = {
    "method": "forward",
    "method_output_name": "last_hidden_state",
}  # how an encoder takes texts, from 5.4 on
_NO_LIMIT = 10**9  # transformers writes 10**30 for a tokenizer without a limit

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Dense:
    """A linear layer on the sentence vector, `activation(weight @ vector + bias)`; equal if its numbers are."""

    weight: Tensor
    """(out, in), fp32."""
    bias: Tensor | None = None
    """(out,), fp32."""
    activation: str = "tanh"
    """A key of `ACTIVATIONS`."""

    def __eq__(self, other: object) -> bool:
        """Compare names and numbers."""
        if (
            not isinstance(other, Dense)
            or self.activation != other.activation
            or not torch.equal(self.weight, other.weight)
        ):
            return False
        if self.bias is None or other.bias is None:
            return self.bias is other.bias
        return torch.equal(self.bias, other.bias)


@dataclass(frozen=True)
class SentenceModules:
    """What stands in a folder of sentence-transformers beside encoder and tokenizer, in the order in which it is computed."""

    transformer_path: str = ""
    """Sub folder of the encoder, "" for the folder itself; very old folders have "0_Transformer"."""
    max_length: int | None = None
    """Most tokens of a text, special ones included; None where the folder names no limit."""
    do_lower_case: bool = False
    """Lower-case texts before the tokenizer does what it does anyway."""
    pooling: str = "mean"
    """A key of `POOLINGS`."""
    include_prompt: bool = True
    """Whether the tokens of a prompt count in the pooling; if not, [CLS] goes with them."""
    dense: tuple[Dense, ...] = ()
    normalize: bool = False
    """Whether the vector is brought to length 1, after all dense layers."""
    truncate_dim: int | None = None
    """Numbers that are kept of a vector, after `normalize`: what is kept is not brought to length 1 again."""
    prompts: dict[str, str] = field(default_factory=dict)
    """Texts to be put before a text, by name."""
    default_prompt_name: str | None = None
    similarity_fn_name: str | None = None
    """One of `SIMILARITIES`; None where the folder names none, which sentence-transformers takes for cosine."""


def is_sentence_transformers_folder(folder: str | Path) -> bool:
    """Return whether sentence-transformers saved the folder: it holds modules.json. `read_modules` says whether bertune can use it."""
    return (Path(folder) / "modules.json").is_file()


def read_modules(folder: str | Path) -> SentenceModules:
    """Read all of a folder of sentence-transformers but encoder and tokenizer, in its legacy or its new layout.

    Raises:
        ArtifactError: a file is missing or damaged, or says something that bertune does not compute, such as a module or a pooling of
            another kind; the message names the file.
    """
    place = Path(folder)
    (_, encoder), (_, pooling), *others = _entries(place)
    dense = [path for kind, path in others if kind == "Dense"]
    normalize = [path for kind, path in others if kind == "Normalize"]
    max_length, do_lower_case = _read_encoder_settings(place / encoder)
    mode, include_prompt, width = _read_pooling(place / pooling / "config.json")
    layers = tuple(_read_dense(place / path) for path in dense)
    _check_widths(layers, width, place / "modules.json")
    for path in normalize:
        _read_normalize(place / path / "config.json")
    prompts, default_prompt_name, similarity, truncate_dim = _read_usage(
        place / "config_sentence_transformers.json"
    )
    return SentenceModules(
        transformer_path=encoder,
        max_length=max_length,
        do_lower_case=do_lower_case,
        pooling=mode,
        include_prompt=include_prompt,
        dense=layers,
        normalize=bool(normalize),
        truncate_dim=truncate_dim,
        prompts=prompts,
        default_prompt_name=default_prompt_name,
        similarity_fn_name=similarity,
    )


def write_modules(folder: str | Path, modules: SentenceModules, width: int) -> None:
    """Write all of a folder of sentence-transformers but encoder and tokenizer, in its legacy layout; modules.json comes last.

    Older versions leave out what they do not know: 5.1 has no `truncate_dim` in a folder, and 2.7 finds no weights of a dense layer.

    Args:
        folder: made where it is missing; a file that is there is replaced in one step.
        modules: what to write.
        width: numbers of a token vector.

    Raises:
        ArtifactError: the folder cannot be written, or `modules` is nothing that could be read again.
    """
    place = Path(folder)
    _check_path(modules.transformer_path, place / "modules.json")
    _check_pooling(modules.pooling, place / "1_Pooling" / "config.json")
    _check_widths(modules.dense, width, place / "modules.json")
    _check_usage(
        modules.prompts,
        modules.default_prompt_name,
        modules.similarity_fn_name,
        place / "config_sentence_transformers.json",
    )
    for name, value in (("max_length", modules.max_length), ("truncate_dim", modules.truncate_dim)):
        _check_positive(name, value, place)
    entries = [("Transformer", modules.transformer_path), ("Pooling", "1_Pooling")]
    entries += [("Dense", f"{number}_Dense") for number in range(2, 2 + len(modules.dense))]
    entries += [("Normalize", f"{len(entries)}_Normalize")] if modules.normalize else []
    encoder_settings = {"max_seq_length": modules.max_length, "do_lower_case": modules.do_lower_case}
    try:
        _write_json(place / modules.transformer_path / "sentence_bert_config.json", encoder_settings)
        _write_json(place / "1_Pooling" / "config.json", _pooling_config(modules, width))
        for number, layer in enumerate(modules.dense, 2):
            _write_dense(place / f"{number}_Dense", layer)
        _write_json(place / "config_sentence_transformers.json", _usage_config(modules))
        listing = [
            {"idx": n, "name": str(n), "path": path, "type": f"{_HOMES[0]}.{kind}"}
            for n, (kind, path) in enumerate(entries)
        ]
        _write_json(place / "modules.json", listing)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(
            f"{place}: cannot be written: {getattr(error, 'strerror', None) or error}"
        ) from None


@dataclass(frozen=True)
class _Settings:
    """A JSON object, and the file it stands in."""

    file: Path
    values: JSON

    @classmethod
    def read(cls, file: Path, needed: bool = True) -> _Settings:
        """Read a file; one that is missing though it is not needed is empty."""
        values = _read_json(file) if needed or file.exists() else {}
        if not isinstance(values, dict):
            raise ArtifactError(
                f"{file}: damaged: is {type(values).__name__}, not an object; get the file again"
            )
        return cls(file, values)

    def get(self, name: str, kind: type[T], default: T) -> T:
        """Return a value, or `default` where there is none or null."""
        value = self.values.get(name)
        if value is None:
            return default
        if type(value) is not kind:
            raise ArtifactError(
                f"{self.file}: {name} is {value!r}, must be of type {kind.__name__}; mend the file"
            )
        return value

    def positive(self, name: str) -> int | None:
        """Return a whole number above 0, or None where there is none."""
        value = None if self.values.get(name) is None else self.get(name, int, 0)
        _check_positive(name, value, self.file)
        return value

    def only(self, name: str, *allowed: object) -> None:
        """Refuse a value that would give other vectors than bertune computes."""
        value = self.values.get(name)
        if value is not None and value not in allowed:
            raise _unsupported(self.file, f"{name} is {value!r}, bertune computes {listed(allowed)} only")

    def no_others(self, names: Collection[str]) -> None:
        """Refuse settings that bertune does not know: they may mean other vectors."""
        unknown = [name for name in self.values if name not in names]
        if unknown:
            raise _unsupported(
                self.file,
                f"has settings that bertune does not know: {listed(unknown)}; known are {listed(names, 20)}",
            )


def _entries(place: Path) -> list[tuple[str, str]]:
    """Return kind and sub folder of each module in order: Transformer, Pooling, any number of Dense, at most one Normalize."""
    file = place / "modules.json"
    found = _read_json(file)
    if not isinstance(found, list) or not all(
        isinstance(e, dict) and isinstance(e.get("type"), str) for e in found
    ):
        raise ArtifactError(f"{file}: damaged: not a list of modules, each with its type; get the file again")
    entries = [(_kind(entry["type"], file), entry.get("path")) for entry in found]
    for _, path in entries:
        _check_path(path, file)
    kinds = [kind for kind, _ in entries]
    if kinds != [
        "Transformer",
        "Pooling",
        *["Dense"] * kinds.count("Dense"),
        *["Normalize"] * ("Normalize" in kinds),
    ]:
        raise _unsupported(
            file,
            f"has the modules {kinds}, bertune computes Transformer, Pooling, any Dense, at most one Normalize",
        )
    return entries


def _kind(type_: str, file: Path) -> str:
    """Return Transformer, Pooling, Dense or Normalize for a class of sentence-transformers, wherever a version of it has that class."""
    home, _, kind = type_.rpartition(".")
    if kind not in _KINDS or home.removesuffix(f".{kind}").removesuffix(f".{kind.lower()}") not in _HOMES:
        raise _unsupported(
            file, f"has the module {type_!r}, bertune computes {listed(_KINDS)} of sentence-transformers only"
        )
    return kind


def _read_encoder_settings(folder: Path) -> tuple[int | None, bool]:
    """Return the most tokens of a text, and whether texts are lower-cased."""
    files = [_Settings.read(folder / name, needed=False) for name in _ENCODER_FILES]
    settings = next(
        (s for s in files if s.values), files[0]
    )  # as sentence-transformers does, the first that is not empty
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
        raise _unsupported(settings.file, f"has arguments that bertune does not take: {listed(arguments)}")
    texts = settings.get("modality_config", dict, {"text": _TEXTS}).get("text")
    if texts != _TEXTS:
        raise _unsupported(
            settings.file, f"modality_config takes texts by {texts!r}, bertune by {_TEXTS} only"
        )
    return settings.positive("max_seq_length") or _tokenizer_length(folder), settings.get(
        "do_lower_case", bool, False
    )


def _tokenizer_length(folder: Path) -> int | None:
    """Return the most tokens by tokenizer and encoder, which counts where sentence-transformers says nothing itself."""
    places = (("tokenizer_config.json", "model_max_length"), ("config.json", "max_position_embeddings"))
    found = [_Settings.read(folder / name, needed=False).values.get(key) for name, key in places]
    numbers = [n for n in found if isinstance(n, int | float) and not isinstance(n, bool)]
    return min((int(n) for n in numbers if 0 < n < _NO_LIMIT), default=None)


def _read_pooling(file: Path) -> tuple[str, bool, int]:
    """Return the pooling, whether prompts count, and the numbers of a token vector."""
    settings = _Settings.read(file)
    flags = {**POOLINGS, **_OTHER_POOLINGS}
    settings.no_others(
        ["word_embedding_dimension", "embedding_dimension", "pooling_mode", "include_prompt", *flags.values()]
    )
    modes: Any = settings.values.get("pooling_mode")
    if modes is None:
        modes = [mode for mode, flag in flags.items() if settings.get(flag, bool, False)] or ["mean"]
    mode = _check_pooling(modes[0] if isinstance(modes, list) and len(modes) == 1 else modes, file)
    width = settings.positive("embedding_dimension") or settings.positive("word_embedding_dimension")
    if width is None:
        raise ArtifactError(
            f"{file}: damaged: has neither embedding_dimension nor word_embedding_dimension; get the file again"
        )
    return mode, settings.get("include_prompt", bool, True), width


def _read_dense(folder: Path) -> Dense:
    settings = _Settings.read(folder / "config.json")
    sizes, ends = ("in_features", "out_features"), ("module_input_name", "module_output_name")
    settings.no_others([*sizes, "bias", "activation_function", *ends, "use_residual"])
    settings.only("use_residual", False)
    for name in ends:
        settings.only(name, _VECTOR)
    named = settings.get("activation_function", str, ACTIVATIONS["tanh"])
    known = {
        path: name
        for name, long in ACTIVATIONS.items()
        for path in (long, f"torch.nn.{long.rpartition('.')[2]}")
    }
    if named not in known:
        raise _unsupported(
            settings.file,
            f"activation_function is {named!r}, bertune computes {listed(ACTIVATIONS.values())} only",
        )
    file, weights = _read_weights(folder)
    out_features, in_features = settings.positive("out_features"), settings.positive("in_features")
    shapes: dict[str, tuple[int | None, ...]] = {"linear.weight": (out_features, in_features)}
    if settings.get("bias", bool, True):
        shapes["linear.bias"] = (out_features,)
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if found != shapes:
        raise ArtifactError(
            f"{file}: holds {found}, but config.json beside it says {shapes}; get both files again"
        )
    bias = weights["linear.bias"].float() if "linear.bias" in weights else None
    return Dense(weights["linear.weight"].float(), bias, known[named])


def _read_normalize(file: Path) -> None:
    """Refuse a Normalize of anything but the vector; in the legacy layout there is no file."""
    settings = _Settings.read(file, needed=False)
    settings.no_others(["module_input_name", "module_output_name"])
    for name in settings.values:
        settings.only(name, _VECTOR)


def _read_usage(file: Path) -> tuple[dict[str, str], str | None, str | None, int | None]:
    """Return prompts, the name of the one that is used unasked, similarity and truncation."""
    settings = _Settings.read(file, needed=False)
    settings.only("model_type", "SentenceTransformer")
    prompts = {name: "" if text is None else text for name, text in settings.get("prompts", dict, {}).items()}
    default_prompt_name = settings.get("default_prompt_name", str, "") or None
    similarity = settings.get("similarity_fn_name", str, "") or None
    _check_usage(prompts, default_prompt_name, similarity, file)
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
    file = next(
        (folder / name for name in ("model.safetensors", "pytorch_model.bin") if (folder / name).is_file()),
        None,
    )
    if file is None:
        raise ArtifactError(
            f"{folder}: holds neither model.safetensors nor pytorch_model.bin; get the weights of this module again"
        )
    try:
        weights: Any = (
            load_file(file)
            if file.suffix == ".safetensors"
            else torch.load(file, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to mean
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ArtifactError(f"{file}: damaged: {reason}; get the file again") from None
    if not isinstance(weights, dict) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise ArtifactError(f"{file}: damaged: holds no tensors by name; get the file again")
    return file, weights


def _unsupported(file: Path, what: str) -> ArtifactError:
    return ArtifactError(f"{file}: {what}; open this folder with sentence-transformers itself")


def _check_path(path: object, file: Path) -> None:
    windows = PureWindowsPath(path) if isinstance(path, str) else None  # takes the other kind of path, too
    if windows is None or windows.anchor or ".." in windows.parts or "\0" in str(path):
        raise ArtifactError(
            f"{file}: the path of a module is {path!r}, must be that of a folder inside this one; mend the file"
        )


def _check_pooling(mode: object, file: Path) -> str:
    if not isinstance(mode, str) or mode not in POOLINGS:
        raise _unsupported(file, f"has the pooling {mode!r}, bertune has {listed(POOLINGS)}, one at a time")
    return mode


def _check_widths(dense: tuple[Dense, ...], width: int, file: Path) -> None:
    """Refuse layers that do not fit one upon the other, the first upon `width` numbers."""
    for number, layer in enumerate(dense, 2):
        where, shape = f"{file}: the layer {number}_Dense has", tuple(layer.weight.shape)
        if layer.activation not in ACTIVATIONS:
            raise ArtifactError(
                f"{where} the activation {layer.activation!r}; choose one of {listed(ACTIVATIONS)}"
            )
        if len(shape) != 2 or shape[1] != width:
            raise ArtifactError(
                f"{where} weights of shape {shape}, must be (out, {width}) for what stands before it; mend it"
            )
        width = shape[0]
        if layer.bias is not None and tuple(layer.bias.shape) != (width,):
            raise ArtifactError(
                f"{where} a bias of shape {tuple(layer.bias.shape)}, must be ({width},); mend it"
            )


def _check_usage(
    prompts: dict[str, str], default_prompt_name: str | None, similarity: str | None, file: Path
) -> None:
    if not all(isinstance(text, str) for text in prompts.values()):
        raise ArtifactError(f"{file}: prompts are {prompts!r}, must be texts by name; mend them")
    if default_prompt_name is not None and default_prompt_name not in prompts:
        raise ArtifactError(
            f"{file}: default_prompt_name is {default_prompt_name!r}, must be one of {listed(prompts)}; mend it"
        )
    if similarity is not None and similarity not in SIMILARITIES:
        raise ArtifactError(
            f"{file}: similarity_fn_name is {similarity!r}, must be one of {listed(SIMILARITIES)}; mend it"
        )


def _check_positive(name: str, value: int | None, file: Path) -> None:
    if value is not None and value < 1:
        raise ArtifactError(f"{file}: {name} is {value}, must be at least 1; mend it")


def _pooling_config(modules: SentenceModules, width: int) -> JSON:
    flags = {flag: mode == modules.pooling for mode, flag in {**POOLINGS, **_OTHER_POOLINGS}.items()}
    return {"word_embedding_dimension": width, **flags, "include_prompt": modules.include_prompt}


def _usage_config(modules: SentenceModules) -> JSON:
    versions = {
        name: importlib.metadata.version(package)
        for name, package in (("transformers", "transformers"), ("pytorch", "torch"))
    }
    config: JSON = {
        "__version__": {"sentence_transformers": _LAYOUT, **versions},
        "prompts": modules.prompts,
        "default_prompt_name": modules.default_prompt_name,
        "similarity_fn_name": modules.similarity_fn_name,
    }
    return config if modules.truncate_dim is None else {**config, "truncate_dim": modules.truncate_dim}


def _write_dense(folder: Path, layer: Dense) -> None:
    out_features, in_features = layer.weight.shape
    config = {"in_features": in_features, "out_features": out_features, "bias": layer.bias is not None}
    _write_json(folder / "config.json", {**config, "activation_function": ACTIVATIONS[layer.activation]})
    tensors = (
        {"linear.weight": layer.weight}
        if layer.bias is None
        else {"linear.weight": layer.weight, "linear.bias": layer.bias}
    )
    part = folder / "model.safetensors.part"
    save_file(
        {name: t.detach().float().cpu().contiguous().clone() for name, t in tensors.items()},
        part,
        metadata={"format": "pt"},
    )
    part.replace(folder / "model.safetensors")


def _write_json(file: Path, value: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(file.name + ".part")
    part.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    part.replace(file)
