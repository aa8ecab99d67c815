"""Pretrained folders to encoders: bertune's own where possible, else one of transformers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from bertune.encoders.asked_settings import check_numbers, check_settings
from bertune.encoders.bert import Bert
from bertune.encoders.families.family import Family
from bertune.encoders.families.glyphs import GlyphOptions
from bertune.encoders.families.registry import get_family
from bertune.encoders.model_code import check_code, code_of
from bertune.encoders.pretrained import PretrainedFolder
from bertune.errors import ConfigError, listed
from bertune.text.tokenizer import Tokenizer
from bertune.types import Encoder

_FLOATS = {torch.float32, torch.float16, torch.bfloat16, torch.float64}
_BUFFERS = ("position_ids", "token_type_ids")  # numbers from 0 on, which older checkpoints carry along


@dataclass
class LoadReport:
    """How the weights of a checkpoint fit the encoder."""

    missing_keys: list[str] = field(default_factory=list)
    """Weights that the checkpoint lacks."""
    unexpected_keys: list[str] = field(default_factory=list)
    """Weights of the checkpoint that are not used."""
    pooler: dict[str, Tensor] = field(default_factory=dict)
    """A pretrained hidden layer for the head: `weight` and `bias`, where the checkpoint has one."""
    notes: list[str] = field(default_factory=list)
    """What else a user should know."""


@dataclass(frozen=True)
class WeightComparison:
    """Names and shapes of a checkpoint beside those of the encoder that config.json describes."""

    missing_keys: list[str]
    unexpected_keys: list[str]
    mismatched_keys: list[str]
    """Weights whose shapes differ."""


def load_encoder(
    folder: PretrainedFolder | Path, glyphs: GlyphOptions | None = None
) -> tuple[Encoder, LoadReport]:
    """Read a pretrained encoder, weights in fp32: safetensors or pytorch_model.bin, gamma/beta names too.

    Args:
        folder: of the pretrained model.
        glyphs: for families with pictures of tokens: where these come from if the checkpoint has none, and
            whether they are trained.

    Raises:
        ConfigError: the architecture or the weights cannot be read.
    """
    folder = _opened(folder)
    notes = _check_code(folder)
    if folder.family is not None and folder.encoder_weights:
        notes += check_folder_settings(folder, folder.family)
        encoder, report = _load_native(folder, folder.family, glyphs or GlyphOptions())
        notes += [folder.renaming.note()] if folder.renaming else []
        report.notes = [*notes, *report.notes]
        return encoder, _note_unused_glyphs(encoder, report, glyphs)
    _refuse_outside_transformers(folder)
    from bertune.encoders.auto_load import load_auto_encoder

    renaming = folder.renaming
    weights = {renaming(name): tensor for name, tensor in folder.weights.items()} if renaming else None
    notes += [renaming.note()] if renaming else []
    auto, missing, unexpected, pooler = load_auto_encoder(
        folder.path, trusts_code=folder.runs_code, weights=weights
    )
    report = LoadReport(missing, unexpected, pooler, [*notes, *auto.notes])
    return auto, _note_unused_glyphs(auto, report, glyphs)


def check_folder(folder: PretrainedFolder) -> None:
    """Refuse a folder whose encoder cannot be run, without reading its weights.

    Raises:
        ConfigError: see `load_encoder`.
    """
    _check_code(folder)
    if folder.family is not None and folder.family.find_prefix(folder.renamed_shapes) is not None:
        check_folder_settings(folder, folder.family)
        return
    _refuse_outside_transformers(folder)
    from bertune.encoders.auto_load import check_auto_folder

    check_auto_folder(folder.path, trusts_code=folder.runs_code)


def check_asked(folder: PretrainedFolder) -> list[str]:
    """Refuse what config.json asks for and bertune does not run, without looking at weights; return notes.

    Raises:
        ConfigError: see `load_encoder`.
    """
    notes = _check_code(folder)
    if folder.family is not None:
        return notes + check_folder_settings(folder, folder.family)
    _refuse_outside_transformers(folder)
    from bertune.encoders.auto_load import check_auto_settings

    return notes + check_auto_settings(folder.path, trusts_code=folder.runs_code)


def build_encoder(folder: PretrainedFolder | Path) -> Encoder:
    """Build an encoder without weights, to be filled from a saved model in `folder`.

    Raises:
        ConfigError: the architecture cannot be read.
    """
    folder = _opened(folder)
    _check_code(folder)
    if folder.family is not None:
        return _build_native(folder, folder.family)
    _refuse_outside_transformers(folder)
    from bertune.encoders.auto_load import build_auto_encoder

    return build_auto_encoder(folder.path, trusts_code=folder.runs_code)


def check_token_ids(tokenizer: Tokenizer, encoder: Encoder, folder: Path) -> None:
    """Refuse a tokenizer that gives ids for which the encoder has no vector.

    Raises:
        ConfigError: it does.
    """
    num_vectors, highest = len(encoder.word_embeddings()), tokenizer.max_token_id
    if highest >= num_vectors:
        raise ConfigError(
            f"model: the tokenizer in {str(folder)!r} has {tokenizer.vocab_size} tokens, its encoder "
            f"only {num_vectors} word vectors, and its highest id is {highest}; they do not belong together"
        )


def compare_weights(folder: PretrainedFolder) -> WeightComparison:
    """Compare a checkpoint with the encoder that its config.json describes, by names and shapes alone.

    Raises:
        ConfigError: bertune has no encoder for config.json, or there are no weights.
    """
    family = folder.family
    if family is None:
        raise ConfigError(f"model: config.json in {str(folder.path)!r} describes no encoder of bertune's own")
    with torch.device("meta"):
        encoder = _build_native(folder, family)
    wanted = {encoder.hf_name(name): tuple(tensor.shape) for name, tensor in encoder.state_dict().items()}
    shapes = folder.renamed_shapes
    prefix = family.find_prefix(shapes) or ""
    names = family.inner_names(shapes)
    return WeightComparison(
        [f"{prefix}{name}" for name in wanted if name not in names],
        [full for name, full in names.items() if name not in wanted and not _is_buffer(name)],
        [full for name, full in names.items() if wanted.get(name, shapes[full]) != shapes[full]],
    )


def check_folder_settings(folder: PretrainedFolder, family: Family) -> list[str]:
    """Look for settings that bertune's own encoder would ignore, and return notes for the user.

    A folder that bertune wrote has been through this when it was trained.

    Raises:
        ConfigError: config.json asks for something that would not be computed.
    """
    check_numbers(folder.config, family.defaults)
    if folder.is_saved_by_bertune:
        return []
    return check_settings(folder.config, family.setting_names, f"bertune's own {folder.config['model_type']}")


def _check_code(folder: PretrainedFolder) -> list[str]:
    folder.check_config()
    family = get_family(folder.config.get("model_type"))
    if not folder.names_code or (family is not None and family.bertune_only_reason):
        return []
    if not folder.runs_code:
        return check_code(folder.path, folder.config, _asked_besides(folder))
    return [f"Python code of the folder is run, as you trust it: {', '.join(code_of(folder.config))}"]


def _asked_besides(folder: PretrainedFolder) -> str:
    """Say what there is without the folder's own code: settings that nobody computes, or perhaps nothing."""
    family = get_family(folder.config.get("model_type"))
    if family is None:
        return ""
    try:
        check_folder_settings(folder, family)
    except ConfigError as error:
        text = str(error).removeprefix("model: ").partition("; give another")[0]
        return f". Without that code, {text}"
    return f". If the folder is a plain {folder.config['model_type']}, take auto_map out of config.json"


def _opened(folder: PretrainedFolder | Path) -> PretrainedFolder:
    return folder if isinstance(folder, PretrainedFolder) else PretrainedFolder(folder)


def _is_buffer(name: str) -> bool:
    return name.rpartition(".")[2] in _BUFFERS


def _note_unused_glyphs(encoder: Encoder, report: LoadReport, glyphs: GlyphOptions | None) -> LoadReport:
    family = get_family(encoder.model_type)
    if glyphs and glyphs != GlyphOptions() and not (family is not None and family.has_glyphs):
        report.notes.append(
            f"train.glyphs and train.glyph_font have no effect, since a {encoder.model_type} encoder sees no "
            "glyphs"
        )
    return report


def _refuse_outside_transformers(folder: PretrainedFolder) -> None:
    """Keep transformers from opening an encoder that it does not have as something else."""
    model_type = folder.config.get("model_type")
    family = get_family(model_type)
    if family is not None and family.bertune_only_reason:
        raise ConfigError(
            f"model: {str(folder.path)!r} holds no {model_type} that can be read: no weight "
            f"{family.word_table!r}, or settings of a decoder"
        )


def _build_native(folder: PretrainedFolder, family: Family) -> Bert:
    config = folder.config
    try:
        encoder = (family.encoder_class() or Bert)(config, family)
        if encoder.config.hidden_size % encoder.config.num_heads:
            raise ValueError(
                f"width {encoder.config.hidden_size} cannot be shared among {encoder.config.num_heads} heads"
            )
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise ConfigError(
            f"model: config.json in {str(folder.path)!r} describes no {config['model_type']} encoder: {error}"
        ) from None
    return encoder


def _find_pooler(weights: dict[str, Tensor], hidden_size: int) -> dict[str, Tensor]:
    """Return the pretrained pooler, which other tools look for in a saved folder; empty without one."""
    shapes = {"pooler.dense.weight": (hidden_size, hidden_size), "pooler.dense.bias": (hidden_size,)}
    if any(name not in weights or tuple(weights[name].shape) != shape for name, shape in shapes.items()):
        return {}
    return {name: weights[name].float().clone() for name in shapes}  # a clone, or the file stays mapped


def _load_native(folder: PretrainedFolder, family: Family, glyphs: GlyphOptions) -> tuple[Bert, LoadReport]:
    """Put the weights of a checkpoint into an encoder, and draw those that it lacks."""
    encoder = _build_native(folder, family)
    weights = folder.encoder_weights
    own = encoder.state_dict()
    hf_names = {name: encoder.hf_name(name) for name in own}
    given = {name: weights[hf_name] for name, hf_name in hf_names.items() if hf_name in weights}
    wrong = [f"{hf_names[n]} {tuple(t.shape)}" for n, t in given.items() if t.shape != own[n].shape]
    if wrong:
        raise ConfigError(
            f"model: weights in {str(folder.path)!r} have other shapes than its config.json says: "
            f"{listed(wrong, 3)}"
        )
    strange = [f"{hf_names[n]} {t.dtype}" for n, t in given.items() if t.dtype not in _FLOATS]
    if strange:
        raise ConfigError(
            f"model: weights in {str(folder.path)!r} are quantized, without a word in config.json: "
            f"{listed(strange, 3)}; give the checkpoint in fp32, fp16 or bf16"
        )
    with torch.no_grad():
        for name, tensor in given.items():
            own[name].copy_(tensor)
    missing = [name for name in own if name not in given]
    encoder.init_weights(missing)
    notes = family.after_load(encoder, missing, folder, glyphs)
    pooler = folder.pooler(encoder.hidden_size)
    encoder.kept_weights = _find_pooler(weights, encoder.hidden_size)
    used = {*hf_names.values(), *(f"{family.head.pretrained_pooler}.{part}" for part in pooler)}
    unexpected = sorted(name for name in weights if name not in used and not _is_buffer(name))
    return encoder, LoadReport(sorted(hf_names[name] for name in missing), unexpected, pooler, notes)
