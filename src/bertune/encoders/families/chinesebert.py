"""ChineseBERT as a family: how a folder is recognized, its names, and its glyphs. Loads no torch.

The encoder is in `chinesebert_encoder.py`.

Sources: Sun et al. 2021, arXiv 2106.16038; names of weights as in ShannonAI/ChineseBert and
junnyu/ChineseBERT-base.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from bertune.encoders.families.family import (
    BERT_DEFAULTS,
    BERT_EMBEDDING_NAMES,
    Family,
    bert_head,
    bert_masked_lm,
)
from bertune.errors import ConfigError, listed
from bertune.text.pinyin import PINYIN_MAP_FILE, PINYIN_TENSOR_FILE
from bertune.types import JSON

if TYPE_CHECKING:
    from bertune.encoders.bert import Bert
    from bertune.encoders.families.glyphs import GlyphOptions
    from bertune.encoders.pretrained import PretrainedFolder

_OWN_SETTINGS = ("glyph_embedding_dim", "pinyin_map_len")
_OWN_WEIGHT = "embeddings.map_fc.weight"
_GLYPH_WEIGHT = "bert.embeddings.glyph_embeddings.embedding.weight"


@dataclass(frozen=True)
class ChineseBertFamily(Family):
    """BERT's layers after embeddings of word, pinyin and glyph."""

    def recognizes(self, config: JSON, folder: PretrainedFolder) -> bool:
        """Recognize the releases, which call themselves "bert", by settings, files or names of weights."""
        if config.get("model_type", "bert") != "bert":
            return False
        classes = config.get("architectures")
        is_named = isinstance(classes, list) and any(str(name).startswith("ChineseBert") for name in classes)
        if is_named or any(name in config for name in _OWN_SETTINGS) or folder.has_file(PINYIN_MAP_FILE):
            return True
        if folder.is_saved_by_bertune:  # then its settings say what it is
            return False
        try:
            return any(name.endswith(_OWN_WEIGHT) for name in folder.weight_shapes)
        except ConfigError:
            return False  # whoever reads the weights says what is wrong with them

    def encoder_class(self) -> type[Bert]:
        """Return the class with the three embeddings."""
        from bertune.encoders.families.chinesebert_encoder import ChineseBert

        return ChineseBert

    def after_load(
        self, encoder: Bert, missing_keys: list[str], folder: PretrainedFolder, glyphs: GlyphOptions
    ) -> list[str]:
        """Fill the glyph table where the checkpoint has none, and say where the glyphs come from."""
        from bertune.encoders.families.chinesebert_encoder import GLYPH_TABLE, ChineseBert

        name = f"{GLYPH_TABLE}.weight"
        table = encoder.state_dict()[name]
        if name in missing_keys:
            missing_keys.remove(name)
            source, notes = _fill_glyphs(encoder, folder, glyphs)
        else:
            source, notes = "of the checkpoint", []
            if glyphs.fonts:
                notes.append("train.glyph_font has no effect, since the checkpoint has glyphs")
        if glyphs.trainable:
            cast(ChineseBert, encoder).train_glyphs()
        state = "trained" if glyphs.trainable else "frozen"
        return [f"glyphs: {source}; {table.numel() / 1e6:.1f} M numbers, {state}", *notes]

    def add_to_report(self, report: JSON, folder: PretrainedFolder) -> None:
        """Add where pinyin comes from, and the files with pictures, which replace a missing glyph table."""
        from bertune.encoders.families.glyphs import find_glyph_files

        report["pinyin"] = _pinyin_source(folder)
        report["pictures"] = [path.name for path in find_glyph_files(folder.path)]
        if report["pictures"]:
            report["lacks"][:] = [line for line in report["lacks"] if not line.endswith(f" {_GLYPH_WEIGHT}")]

    def format_report(self, report: JSON) -> list[str]:
        """Return a line for pinyin and one for pictures."""
        pictures = ", ".join(report["pictures"]) or "no .npy"
        return [f"pinyin: {report['pinyin']}", f"pictures of characters: {pictures}"]


def _fill_glyphs(encoder: Bert, folder: PretrainedFolder, glyphs: GlyphOptions) -> tuple[str, list[str]]:
    """Fill the glyph table from pictures in the folder, else from fonts; return the source and notes."""
    from bertune.encoders.families.chinesebert_encoder import GLYPH_TABLE
    from bertune.encoders.families.glyphs import find_glyph_files, read_glyphs, render_glyphs
    from bertune.text.pinyin_tokenizer import load_pinyin_tokenizer

    table = encoder.state_dict()[f"{GLYPH_TABLE}.weight"]
    files = find_glyph_files(folder.path)
    if files:
        table.copy_(read_glyphs(files, *table.shape))
        notes = ["train.glyph_font has no effect, since the folder has pictures"] if glyphs.fonts else []
        return f"read from {listed(file.name for file in files)}", notes
    if not glyphs.fonts:
        return (
            "drawn at random, since there are none in the checkpoint and no .npy, and train.glyph_font "
            "names no font: they say nothing"
        ), []
    rust, _, _ = load_pinyin_tokenizer(folder.path)
    tokens = [rust.id_to_token(number) or "" for number in range(len(table))]
    pixels, num_lacking = render_glyphs(glyphs.fonts, tokens, table.shape[1])
    table.copy_(pixels)
    note = f"{num_lacking} characters of the vocabulary are not in every font, and have no glyph there"
    return f"drawn from {listed(glyphs.fonts)}", [note] if num_lacking else []


def _pinyin_source(folder: PretrainedFolder) -> str:
    settings = folder.read_json("tokenizer_config.json")
    lists = [name for name in ("pinyin_map", "pinyin2tensor") if settings.get(name)]
    if lists:
        return f"{' and '.join(lists)} in tokenizer_config.json"
    files = [name for name in (PINYIN_MAP_FILE, PINYIN_TENSOR_FILE) if folder.has_file(name)]
    rule = "none in the folder: the built-in rule, which is the same as far as published samples show"
    return " and ".join(files) or rule


CHINESEBERT = ChineseBertFamily(
    "bert",
    "ChineseBertModel",
    bert_head("bert", "ChineseBert"),
    bert_masked_lm("ChineseBert", has_pooler=True),
    defaults={**BERT_DEFAULTS, "vocab_size": 23236, "glyph_embedding_dim": 1728, "pinyin_map_len": 32},
    embedding_names={
        **BERT_EMBEDDING_NAMES,
        "pinyin_embeddings": "embeddings.pinyin_embeddings.embedding",
        "pinyin_conv": "embeddings.pinyin_embeddings.conv",
        "glyph_embeddings": "embeddings.glyph_embeddings.embedding",
        "glyph_map": "embeddings.glyph_map",
        "fusion": "embeddings.map_fc",
    },
    tokenizer_kind="pinyin",
    has_glyphs=True,
    bertune_only_reason=(
        "transformers has no ChineseBERT, and this folder holds no code; weights have the names of the "
        "authors' release"
    ),
)
