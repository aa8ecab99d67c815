"""Pretrained folders to encoders: our own BERT where it computes the architecture, else transformers'."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from bertune.encoders.bert import Bert, BertConfig, is_native
from bertune.encoders.checkpoint_files import read_model_config, read_weights
from bertune.encoders.families.glyphs import GlyphOptions, find_glyph_files, read_glyphs, render_glyphs
from bertune.encoders.names import NOT_IN_TRANSFORMERS, get_family, get_head_spec
from bertune.errors import ConfigError, listed
from bertune.types import JSON, Encoder

_BUFFERS = ("position_ids", "token_type_ids")  # numbers from 0 on, which older checkpoints carry along


@dataclass
class LoadReport:
    """What a checkpoint had and had not, by name."""

    missing_keys: list[str] = field(default_factory=list)
    unexpected_keys: list[str] = field(default_factory=list)
    pooler: dict[str, Tensor] = field(default_factory=dict)
    """A pretrained hidden layer for the head: `weight` and `bias`, where the checkpoint has one."""
    notes: list[str] = field(default_factory=list)
    """What else a user should know of it."""


def load_encoder(folder: Path, glyphs: GlyphOptions | None = None) -> tuple[Encoder, LoadReport]:
    """Read a pretrained encoder, weights in fp32: safetensors or pytorch_model.bin, gamma/beta names too.

    Args:
        folder: of the pretrained model.
        glyphs: where pictures of tokens come from if the checkpoint has none, and whether they learn; for encoders that have any.

    Raises:
        ConfigError: the folder's architecture or its weights cannot be read.
    """
    config = read_model_config(folder)
    if is_native(config):
        state = _without_prefix(read_weights(folder), config["model_type"])
        if state:
            encoder, report = _filled(config, state, folder, glyphs or GlyphOptions())
            return encoder, _with_idle_choice(encoder, report, glyphs)
    _refuse_foreign(config, folder)
    from bertune.encoders.auto import load_auto_encoder

    other, new, unused, pooler = load_auto_encoder(folder)
    return other, _with_idle_choice(other, LoadReport(new, unused, pooler), glyphs)


def _with_idle_choice(encoder: Encoder, report: LoadReport, glyphs: GlyphOptions | None) -> LoadReport:
    if glyphs and glyphs != GlyphOptions() and not hasattr(encoder, "train_glyphs"):
        report.notes.append(
            f"train.glyphs and train.glyph_font have no effect, since a {encoder.model_type} encoder sees no glyphs"
        )
    return report


def _refuse_foreign(config: JSON, folder: Path) -> None:
    """Keep an encoder that transformers does not have from being opened there as something else."""
    kind = config.get("model_type")
    if isinstance(kind, str) and kind in NOT_IN_TRANSFORMERS:
        words = f"{get_family(kind).embedding_names['word_embeddings']}.weight"
        raise ConfigError(
            f"model: {str(folder)!r} holds no {kind} that can be read: no weight {words!r}, or settings of a decoder"
        )


def build_encoder(folder: Path) -> Encoder:
    """Build an encoder without weights, to be filled from a saved model in `folder`.

    Raises:
        ConfigError: the folder's architecture cannot be read.
    """
    config = read_model_config(folder)
    if is_native(config):
        return _empty(config, folder)
    _refuse_foreign(config, folder)
    from bertune.encoders.auto import build_auto_encoder

    return build_auto_encoder(folder)


def _empty(config: JSON, folder: Path) -> Bert:
    try:
        encoder = _class_of(config)(config)
        if encoder.config.hidden_size % encoder.config.num_heads:
            raise ValueError(
                f"width {encoder.config.hidden_size} cannot be shared among {encoder.config.num_heads} heads"
            )
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise ConfigError(
            f"model: config.json in {str(folder)!r} describes no {config['model_type']} encoder: {error}"
        ) from None
    return encoder


def _class_of(config: JSON) -> type[Bert]:
    if config["model_type"] != "chinesebert":
        return Bert
    from bertune.encoders.families.chinesebert import ChineseBert

    return ChineseBert


def compare_weights(
    config: JSON, shapes: dict[str, tuple[int, ...]], folder: Path
) -> tuple[list[str], list[str], list[str]]:
    """Compare names and shapes of a checkpoint with those of the encoder that config.json describes.

    Returns:
        Names that the checkpoint lacks, names in it that are none of the encoder's, and names whose shapes differ.

    Raises:
        ConfigError: config.json describes no encoder of ours.
    """
    encoder = _empty(config, folder)
    wanted = {encoder.hf_name(name): tuple(tensor.shape) for name, tensor in encoder.state_dict().items()}
    prefix = _prefix_of(shapes, config["model_type"]) or ""
    found = {_modern(name.removeprefix(prefix)): (name, shape) for name, shape in shapes.items()}
    missing = [f"{prefix}{name}" for name in wanted if name not in found]
    unused = [
        full
        for name, (full, _) in found.items()
        if name not in wanted and name.rpartition(".")[2] not in _BUFFERS
    ]
    return (
        missing,
        unused,
        [full for name, (full, shape) in found.items() if wanted.get(name, shape) != shape],
    )


def _filled(
    config: JSON, state: dict[str, Tensor], folder: Path, glyphs: GlyphOptions
) -> tuple[Bert, LoadReport]:
    """Put a checkpoint's weights into an encoder; draw what it lacks."""
    encoder = _empty(config, folder)
    held = encoder.state_dict()
    theirs = {name: encoder.hf_name(name) for name in held}
    wrong = [
        f"{theirs[n]} {tuple(state[theirs[n]].shape)}"
        for n, p in held.items()
        if theirs[n] in state and state[theirs[n]].shape != p.shape
    ]
    if wrong:
        raise ConfigError(
            f"model: weights in {str(folder)!r} have other shapes than its config.json says: {listed(wrong, 3)}"
        )
    with torch.no_grad():
        for name, tensor in held.items():
            if theirs[name] in state:
                tensor.copy_(state[theirs[name]])
    new = [name for name in held if theirs[name] not in state]
    encoder.init_weights(new)
    notes = _settle_glyphs(encoder, new, folder, glyphs) if config["model_type"] == "chinesebert" else []
    form = get_head_spec(encoder.model_type)
    pooler = {}
    if form is not None and form.pretrained_pooler:
        names = {kind: f"{form.pretrained_pooler}.{kind}" for kind in ("weight", "bias")}
        if all(name in state and state[name].shape[0] == encoder.hidden_size for name in names.values()):
            pooler = {
                kind: state[name].float().clone() for kind, name in names.items()
            }  # a clone, or the whole file stays mapped
    taken = {*theirs.values(), *(f"{form.pretrained_pooler}.{kind}" for kind in pooler if form is not None)}
    unused = sorted(name for name in state if name not in taken and name.rpartition(".")[2] not in _BUFFERS)
    return encoder, LoadReport(sorted(theirs[name] for name in new), unused, pooler, notes)


def _settle_glyphs(encoder: Bert, new: list[str], folder: Path, choice: GlyphOptions) -> list[str]:
    """Find pictures of tokens where the checkpoint has none, take them from what is `new`, and say where they come from."""
    from bertune.encoders.families.chinesebert import GLYPH_TABLE, ChineseBert
    from bertune.text.pinyin_tokenizer import load_pinyin_tokenizer

    name = f"{GLYPH_TABLE}.weight"
    table = encoder.state_dict()[name]
    files = find_glyph_files(folder)
    notes = []
    if name not in new:
        source = "of the checkpoint"
        if choice.fonts:
            notes.append("train.glyph_font has no effect, since the checkpoint has glyphs")
    elif files:
        table.copy_(read_glyphs(files, *table.shape))
        source = f"read from {listed(file.name for file in files)}"
        if choice.fonts:
            notes.append("train.glyph_font has no effect, since the folder has pictures")
    elif choice.fonts:
        rust = load_pinyin_tokenizer(folder)[0]
        pixels, lacking = render_glyphs(
            choice.fonts, [rust.id_to_token(n) or "" for n in range(len(table))], table.shape[1]
        )
        table.copy_(pixels)
        source = f"drawn from {listed(choice.fonts)}"
        if lacking:
            notes.append(
                f"{lacking} characters of the vocabulary are not in every font, and have no glyph there"
            )
    else:
        source = "drawn at random, since there are none in the checkpoint and no .npy, and train.glyph_font names no font: they say nothing"
    if name in new:
        new.remove(name)
    if choice.trainable:
        cast(ChineseBert, encoder).train_glyphs()
    return [
        f"glyphs: {source}; {table.numel() / 1e6:.1f} M numbers, {'trained' if choice.trainable else 'frozen'}",
        *notes,
    ]


def _without_prefix(state: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Return the encoder's weights and what else there is, under the names inside the encoder; nothing if its words are missing."""
    prefix = _prefix_of(state, kind)
    return (
        {}
        if prefix is None
        else {_modern(name.removeprefix(prefix)): tensor for name, tensor in state.items()}
    )


def _prefix_of(names: Collection[str], kind: str) -> str | None:
    """Return what stands before the encoder's names, or None where its words are missing."""
    family = get_family(kind)
    words = f"{family.embedding_names['word_embeddings']}.weight"
    return next(
        (prefix for prefix in (f"{family.base_model_prefix}.", "") if f"{prefix}{words}" in names), None
    )


def _modern(name: str) -> str:
    """Translate the names that TensorFlow's checkpoints gave LayerNorm."""
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def read_max_positions(folder: Path) -> int:
    """Return how many tokens a row of a folder's encoder may have.

    Raises:
        ConfigError: config.json cannot be read.
    """
    config = read_model_config(folder)
    if is_native(config):
        shape = BertConfig.from_hf_config(config)
        return shape.max_position_embeddings - shape.first_position
    from bertune.encoders.auto import get_max_positions, load_hf_config

    return get_max_positions(load_hf_config(folder))
