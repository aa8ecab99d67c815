"""Names of weights as training frameworks save them: prefixes come off, wrappers are opened.

    {"state_dict": {"module.model.bert.embeddings.word_embeddings.weight": ...}, "epoch": 3}

becomes bert.embeddings.word_embeddings.weight.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bertune.errors import ConfigError, listed

WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "module", "net", "weights", "params")
"""Names under which training programs keep the weights among other things."""
_FRAMEWORK = (
    *WRAPPERS, "_orig_mod", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module",
    "network", "backbone", "auto_model", "pretrained", "pretrained_model", "base_model", "hf_model", "lm",
)  # fmt: skip
_CHAIN = re.compile(rf"(?:(?:{'|'.join(_FRAMEWORK)}|\d+)\.)*")
_INSIDE = re.compile(r"(?<=\.)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")


@dataclass(frozen=True)
class Renaming:
    """How the names of a checkpoint become those that transformers writes."""

    prefix: str = ""
    """What is taken off the beginning."""
    drops_wrappers: bool = False
    """Whether names of wrapped modules are taken out of the middle, too."""

    def __bool__(self) -> bool:
        """Tell whether it changes anything."""
        return bool(self.prefix or self.drops_wrappers)

    def __call__(self, name: str) -> str:
        """Return the new name."""
        return (_INSIDE.sub("", name) if self.drops_wrappers else name).removeprefix(self.prefix)

    def note(self) -> str:
        """Say what was done."""
        parts = [f"the prefix {self.prefix!r}"] if self.prefix else []
        what = " and ".join([*parts, *(["the names of wrapped modules"] if self.drops_wrappers else [])])
        return f"weights: {what}, as training programs write it, was taken off the names"


def find_renaming(names: Iterable[str], word_table: str, base_prefix: str) -> Renaming:
    """Find out what stands before the names of an encoder.

    Args:
        names: of all weights.
        word_table: the name of the table of word vectors inside the encoder; "" where it is not known.
        base_prefix: what transformers puts before the encoder's names in a model with a head, such as "bert".

    Raises:
        ConfigError: there are several encoders.
    """
    every = list(names)
    drops = any(_INSIDE.search(name) for name in every)
    plain = [_INSIDE.sub("", name) for name in every] if drops else every
    if not word_table:
        prefix = _common_chain(plain, base_prefix)
        return Renaming(prefix, drops)
    if any(name in {word_table, f"{base_prefix}.{word_table}"} for name in plain):
        return Renaming("", drops)
    before = [name.removesuffix(word_table) for name in plain if name.endswith(f".{word_table}")]
    if len(before) > 1:
        usual = [prefix for prefix in before if _CHAIN.fullmatch(prefix.removesuffix(f"{base_prefix}."))]
        if len(usual) != 1:
            raise ConfigError(
                f"model: the weights hold {len(before)} encoders, {listed(before, 4)}; save the one that "
                "you want by itself"
            )
        before = usual
    return Renaming(before[0].removesuffix(f"{base_prefix}.") if before else "", drops)


def _common_chain(names: list[str], base_prefix: str) -> str:
    """Return the framework prefixes that all names share, as far as they are not the architecture's own."""
    if not names:
        return ""
    parts: list[str] = []
    chain = names[0].split(".")[:-1]
    for part in chain:
        candidate = ".".join([*parts, part, ""])
        if part not in _FRAMEWORK or part == base_prefix or not all(n.startswith(candidate) for n in names):
            break
        parts.append(part)
    return ".".join([*parts, ""]) if parts else ""


def unwrap(loaded: Any) -> tuple[Mapping[str, Any], str]:
    """Return the weights in what a training program saved, and the name of the wrapper; "" without one."""
    import torch

    if not isinstance(loaded, Mapping):
        return {}, ""
    if any(isinstance(value, torch.Tensor) for value in loaded.values()):
        return loaded, ""
    for name in WRAPPERS:
        inner = loaded.get(name)
        if isinstance(inner, Mapping) and inner:
            weights, deeper = unwrap(inner)
            if weights:
                return weights, f"{name}.{deeper}" if deeper else name
    return {}, ""
