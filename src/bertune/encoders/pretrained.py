"""The folder of a pretrained encoder: where it is, its settings, weights and tokenizer, each read once.

Importing this loads no torch; reading weights does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, TypeVar

from safetensors import SafetensorError, safe_open

from bertune.config.new_encoder import NEW
from bertune.config.schema import DataConfig
from bertune.encoders.families.family import Family
from bertune.encoders.families.registry import FAMILIES, find_native_family, get_family
from bertune.encoders.foreign_files import check_weight_file, describe_other_weights
from bertune.encoders.model_code import code_of
from bertune.encoders.model_hubs import MODELSCOPE, download_model
from bertune.encoders.packaged import PACKAGED_MODELS, locate_packaged
from bertune.encoders.weight_names import Renaming, find_renaming, unwrap
from bertune.errors import ConfigError
from bertune.files import expand_user, read_json_object
from bertune.text.damaged_files import describe_damage
from bertune.text.load import load_tokenizer
from bertune.text.tokenizer import Tokenizer
from bertune.types import JSON

if TYPE_CHECKING:
    from torch import Tensor

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Files of weights; the first one that exists is read. An index names the files of a sharded checkpoint."""
_Value = TypeVar("_Value")


class PretrainedFolder:
    """The folder of a pretrained or saved model. Everything is read when it is first asked for, and kept.

    Drop the object after loading: it keeps the weights of the checkpoint.

    Args:
        path: holds config.json, weights and a tokenizer; or has a folder with them, as early versions of
            sentence-transformers wrote them.
        trusts_code: whether Python code that the folder brings may be run; see `bertune.encoders.model_code`.
    """

    def __init__(self, path: Path, *, trusts_code: bool = False) -> None:
        self.root = path
        """The folder that was given; `path` is the one of the encoder."""
        self.path = _encoder_folder(path)
        self._trusts_code = trusts_code

    @cached_property
    def config(self) -> JSON:
        """Return config.json with the right `model_type`: the releases of ChineseBERT call theirs "bert".

        It is empty where the file cannot be read; transformers' message says more then.
        """
        config = self._config_file[0]
        if not config:
            return {}
        for model_type, family in FAMILIES.items():
            if family.recognizes(config, self):
                return {**config, "model_type": model_type}
        return config

    @cached_property
    def family(self) -> Family | None:
        """Return the family whose encoder computes this architecture; None where transformers is needed."""
        return None if self.runs_code else find_native_family(self.config)

    @property
    def runs_code(self) -> bool:
        """Tell whether Python code of the folder computes the encoder, as the user has allowed."""
        return self._trusts_code and self.names_code

    @cached_property
    def names_code(self) -> bool:
        """Tell whether config.json says that Python code of the folder computes the encoder.

        A folder of bertune says so in bertune.json: its config.json may come from elsewhere.
        """
        if self.is_saved_by_bertune and not self.read_json("bertune.json").get("model_code"):
            return False
        return bool(code_of(self.config))

    @cached_property
    def max_positions(self) -> int:
        """Return how many tokens a row of the encoder may have.

        Raises:
            ConfigError: config.json cannot be read.
        """
        if self.family is not None:
            from bertune.encoders.bert import BertConfig

            return BertConfig.from_hf_config(self.config, self.family).max_positions
        from bertune.encoders.auto import get_max_positions
        from bertune.encoders.auto_load import load_hf_config

        return get_max_positions(load_hf_config(self.path, trusts_code=self.runs_code))

    @cached_property
    def weight_files(self) -> list[Path]:
        """Return the files that hold the weights, an index first; nothing where there are none.

        Raises:
            ConfigError: the index is damaged.
        """
        first = self._first_weight_file
        if first is None:
            return []
        return [first, *self._guard(first, lambda: _parts(first))] if first.suffix == ".json" else [first]

    @cached_property
    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of all weights by name. The weights are not read where the format allows that.

        Raises:
            ConfigError: there are none, or a file is damaged.
        """
        return self._read_weight_files(_read_shapes)

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """Return all weights by the names that the checkpoint has.

        Raises:
            ConfigError: there are none, or a file is damaged.
        """
        return self._read_weight_files(_read_tensors)

    @cached_property
    def encoder_weights(self) -> dict[str, Tensor]:
        """Return all weights, the encoder's by their names inside it; empty without its word table.

        Raises:
            ConfigError: there are none, or a file is damaged.
        """
        weights = {self.renaming(name): tensor for name, tensor in self.weights.items()}
        if self.family is None or self.family.find_prefix(weights) is None:
            return {}
        return {inner: weights[name] for inner, name in self.family.inner_names(weights).items()}

    @cached_property
    def renaming(self) -> Renaming:
        """Return what must be taken off the names of the weights, which a training program has put there.

        Raises:
            ConfigError: there are no weights, or they hold several encoders.
        """
        names = self.__dict__.get("weights") or self.weight_shapes
        if self.family is not None:
            return find_renaming(names, self.family.word_table, self.family.base_model_prefix)
        from bertune.encoders.auto_load import load_hf_config, model_class

        config = load_hf_config(self.path, trusts_code=self.runs_code)
        prefix = "" if self.runs_code else model_class(config).base_model_prefix
        return find_renaming(names, "", prefix)

    @property
    def renamed_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of all weights by the names that transformers gives them."""
        return {self.renaming(name): shape for name, shape in self.weight_shapes.items()}

    def check_config(self) -> None:
        """Refuse a config.json that is none: a pointer, a web page, a piece.

        Raises:
            ConfigError: it is none.
        """
        if damage := self._config_file[1]:
            raise ConfigError(f"model: {self.path / 'config.json'}: {damage}")

    @cached_property
    def _config_file(self) -> tuple[JSON, str]:
        """Return config.json as it is written, and what is wrong with the file."""
        path = self.path / "config.json"
        if damage := describe_damage(path):
            return {}, damage
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            return {}, f"cannot be read: {error.strerror}"
        except ValueError as error:
            return {}, f"is no JSON: {error}"
        return (values, "") if isinstance(values, dict) else ({}, "holds no JSON object")

    def pooler(self, hidden_size: int) -> dict[str, Tensor]:
        """Return a pretrained hidden layer for the head, `weight` and `bias` in fp32; empty without one.

        Args:
            hidden_size: of the encoder; a layer of another size is left alone.
        """
        place = self.family.head.pretrained_pooler if self.family is not None else None
        if place is None:
            return {}
        state = self.encoder_weights
        names = {part: f"{place}.{part}" for part in ("weight", "bias")}
        if not all(name in state and state[name].shape[0] == hidden_size for name in names.values()):
            return {}
        # a clone, or the whole file stays mapped
        return {part: state[name].float().clone() for part, name in names.items()}

    def load_tokenizer(self, data: DataConfig | None = None, max_positions: int | None = None) -> Tokenizer:
        """Read the tokenizer.

        Args:
            data: its `max_length` and `truncation` count; None for the defaults.
            max_positions: how many tokens a row may have, where the encoder is already at hand.

        Raises:
            ConfigError: no tokenizer can be read, or `data.max_length` is more than the encoder has
            positions.
        """
        positions = self.max_positions if max_positions is None else max_positions
        family = get_family(self.config.get("model_type"))
        kind = family.tokenizer_kind if family is not None else "plain"
        return load_tokenizer(self.path, positions, data or DataConfig(), kind)

    @property
    def is_saved_by_bertune(self) -> bool:
        """Tell whether bertune wrote the folder."""
        return self.has_file("bertune.json")

    def has_file(self, name: str) -> bool:
        """Tell whether the folder has a file of this name, which may hold slashes."""
        return (self.path / name).is_file()

    def read_json(self, name: str) -> JSON:
        """Return a JSON object of the folder; empty where there is none that can be read."""
        return self._read_object(name) or {}

    def _read_object(self, name: str) -> JSON | None:
        try:
            values = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return values if isinstance(values, dict) else None

    @property
    def _first_weight_file(self) -> Path | None:
        return next((self.path / name for name in WEIGHT_FILES if self.has_file(name)), None)

    def _read_weight_files(self, read: Callable[[Path], Iterable[tuple[str, _Value]]]) -> dict[str, _Value]:
        first = self._first_weight_file
        if first is None:
            raise ConfigError(
                f"model: cannot read the weights in {str(self.path)!r}: it holds none of "
                f"{', '.join(WEIGHT_FILES)}{describe_other_weights(self.path)}"
            )

        def read_all() -> dict[str, _Value]:
            files = _parts(first) if first.suffix == ".json" else [first]
            for file in files:
                if damage := check_weight_file(file):
                    raise _Damaged(f"{file.name} {damage}")
            values = {name: value for file in files for name, value in read(file)}
            if not values:
                raise _Damaged(f"{first.name} holds no tensors")
            return values

        return self._guard(first, read_all)

    def _guard(self, file: Path, read: Callable[[], _Value]) -> _Value:
        """Run `read`, and turn whatever a damaged file raises into a ConfigError."""
        begin = f"model: cannot read the weights in {str(self.path)!r}: "
        if damage := describe_damage(file):
            raise ConfigError(f"{begin}{file.name} {damage}")
        try:
            return read()
        except _Damaged as error:
            raise ConfigError(f"{begin}{error}") from None
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
            raise ConfigError(f"{begin}{file.name}: {_reason(error)}") from None


class _Damaged(Exception):
    """A file is not what its name says."""


def _reason(error: Exception) -> str:
    text = str(error).strip()
    if isinstance(error, UnpicklingError) or "weights_only" in text:
        return (
            "holds Python objects besides tensors, such as a whole model or the state of a training; save "
            "the weights alone: torch.save(model.state_dict(), 'pytorch_model.bin')"
        )
    if "PytorchStreamReader" in text:
        return "is cut or damaged; download it again"
    return (text.splitlines() or [type(error).__name__])[0]


def _parts(index: Path) -> list[Path]:
    weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    return [index.parent / part for part in sorted(set(weight_map.values()))]


def _read_tensors(path: Path) -> Iterable[tuple[str, Tensor]]:
    import torch
    from safetensors.torch import load_file

    if path.suffix == ".safetensors":
        tensors: dict[str, Tensor] = load_file(path)
        return tensors.items()
    loaded: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    weights, wrapper = unwrap(loaded)
    prefix = f"{wrapper}." if wrapper else ""
    return [(prefix + name, tensor) for name, tensor in weights.items() if isinstance(tensor, torch.Tensor)]


def _read_shapes(path: Path) -> Iterable[tuple[str, tuple[int, ...]]]:
    if path.suffix != ".safetensors":
        return [(name, tuple(tensor.shape)) for name, tensor in _read_tensors(path)]
    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
        return [(name, tuple(file.get_slice(name).get_shape())) for name in names]


def _is_zip(path: Path) -> bool:
    """Tell whether torch can map the file into memory: files before torch 1.6 are no zip archives."""
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _encoder_folder(path: Path) -> Path:
    """Return the folder of the encoder: another one in early folders of sentence-transformers."""
    if (path / "config.json").is_file():
        return path
    try:
        first = json.loads((path / "modules.json").read_text(encoding="utf-8"))[0]
        inside = path / first["path"]
    except (OSError, ValueError, LookupError, TypeError):
        return path
    return inside if (inside / "config.json").is_file() else path


def locate_model(name: str, *, with_code: bool = False) -> Path:
    """Return the folder of a model by its path, its id on a hub, or the name of a packaged encoder.

    Args:
        name: path, id on the Hub, `modelscope:ORG/NAME`, or name.
        with_code: whether Python files are downloaded too.

    Raises:
        MissingExtra: the package of a packaged encoder, or of ModelScope, is not installed.
        ConfigError: there is no such folder, or it holds no config.json, or a hub cannot be reached.
    """
    if name in PACKAGED_MODELS:
        return locate_packaged(name)
    if name.startswith(MODELSCOPE):
        return download_model(name, with_code=with_code)
    path = Path(expand_user(name))
    if name == NEW and not path.is_dir():
        raise ConfigError(
            "model: new begins from nothing, which `bertune train` with task pretrain does alone, since it "
            "makes tokenizer and encoder of its training rows; train such a run first, then give its folder "
            "as model (or the folder encoder in it: the same tokenizer, and the weights before their first "
            "step)"
        )
    if path.is_dir():
        if "ensemble" in read_json_object(path / "bertune.json"):
            raise ConfigError(
                f"model: the folder {name!r} is an ensemble of several models, and one encoder is needed; "
                f"give the folder of a member, such as {path / 'members' / 'member-1'}"
            )
        if not (_encoder_folder(path) / "config.json").is_file():
            raise ConfigError(f"model: the folder {name!r} holds no config.json; {_what_to_give(path, name)}")
        return path
    looks_like_path = path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or "\\" in name
    if looks_like_path or path.exists():
        raise ConfigError(
            f"model: no folder {name!r}; give a folder, a Hub id such as bert-base-chinese, minilm or "
            "e5-small"
        )
    return download_model(name, with_code=with_code)


def _what_to_give(path: Path, name: str) -> str:
    """Say what to do about a folder without config.json, by what it is."""
    if (path / "run.yaml").is_file():
        return (
            "it is a run that was stopped before it saved a model; go on with it first: "
            f"bertune train {name} --resume"
        )
    if (path / "checkpoint.json").is_file():
        return (
            "it is a checkpoint, from which its run goes on and no other; give the folder of the run, "
            f"{path.parent.parent}"
        )
    if any((path / file).is_file() for file in WEIGHT_FILES):
        return (
            "it has weights alone, as bertorch saves them; copy config.json and the files of the tokenizer "
            "from the folder of the encoder that was trained"
        )
    return "give the folder of a pretrained encoder"
