"""A tiny ChineseBERT, written name by name as in the authors' release, without bertune."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

HAN = "好坏很不是的我你天地人大小那些长江成绿行银了么中重要和国在狗猫树房车书"
WORDS = [
    "good",
    "bad",
    "fine",
    "awful",
    "great",
    "poor",
    "the",
    "is",
    "dog",
    "cat",
    "tree",
    "house",
    "car",
    "book",
    "big",
    "small",
]
VOCABULARY = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"!\"',.:;?-", *"。，！？", *HAN, *WORDS, "##s", "##er",
    "##好",
    *"abcdefghijklmnopqrstuvwxyz0123456789",
]  # fmt: skip
V, W, INNER, LAYERS, PIXELS = len(VOCABULARY), 32, 64, 2, 3 * 24 * 24
CONFIG: dict[str, object] = {
    "architectures": ["ChineseBertForMaskedLM"], "attention_probs_dropout_prob": 0.1, "bos_token_id": 0,
    "directionality": "bidi",
    "eos_token_id": 2, "glyph_embedding_dim": PIXELS, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
    "hidden_size": W,
    "initializer_range": 0.02, "intermediate_size": INNER, "layer_norm_eps": 1e-12,
    "max_position_embeddings": 64, "model_type": "bert",
    "name": "ChineseBERT", "num_attention_heads": 4, "num_hidden_layers": LAYERS, "output_past": True,
    "pad_token_id": 0,
    "pinyin_map_len": 32, "pooler_fc_size": W, "pooler_type": "first_token_transform", "type_vocab_size": 2,
    "vocab_size": V,
}  # fmt: skip


def shapes(
    words: int = V, w: int = W, inner: int = INNER, layers: int = LAYERS, positions: int = 64
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the release, encoder, pooler and language-model head."""
    found: dict[str, tuple[int, ...]] = {
        "bert.embeddings.word_embeddings.weight": (words, w),
        "bert.embeddings.position_embeddings.weight": (positions, w),
        "bert.embeddings.token_type_embeddings.weight": (2, w),
        "bert.embeddings.pinyin_embeddings.embedding.weight": (32, 128),
        "bert.embeddings.pinyin_embeddings.conv.weight": (w, 128, 2),
        "bert.embeddings.pinyin_embeddings.conv.bias": (w,),
        "bert.embeddings.glyph_embeddings.embedding.weight": (words, PIXELS),
        "bert.embeddings.glyph_map.weight": (w, PIXELS),
        "bert.embeddings.glyph_map.bias": (w,),
        "bert.embeddings.map_fc.weight": (w, 3 * w),
        "bert.embeddings.map_fc.bias": (w,),
        "bert.embeddings.LayerNorm.weight": (w,),
        "bert.embeddings.LayerNorm.bias": (w,),
    }
    for n in range(layers):
        layer = f"bert.encoder.layer.{n}"
        for name in (
            "attention.self.query",
            "attention.self.key",
            "attention.self.value",
            "attention.output.dense",
        ):
            found |= {f"{layer}.{name}.weight": (w, w), f"{layer}.{name}.bias": (w,)}
        found |= {
            f"{layer}.intermediate.dense.weight": (inner, w),
            f"{layer}.intermediate.dense.bias": (inner,),
        }
        found |= {f"{layer}.output.dense.weight": (w, inner), f"{layer}.output.dense.bias": (w,)}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            found |= {f"{layer}.{name}.weight": (w,), f"{layer}.{name}.bias": (w,)}
    return found | {
        "bert.pooler.dense.weight": (w, w),
        "bert.pooler.dense.bias": (w,),
        "cls.predictions.bias": (words,),
        "cls.predictions.transform.dense.weight": (w, w),
        "cls.predictions.transform.dense.bias": (w,),
        "cls.predictions.transform.LayerNorm.weight": (w,),
        "cls.predictions.transform.LayerNorm.bias": (w,),
        "cls.predictions.decoder.weight": (words, w),
        "cls.predictions.decoder.bias": (words,),
    }


def weights(seed: int = 0) -> dict[str, Tensor]:
    """Weights in which everything matters."""
    random = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {"bert.embeddings.position_ids": torch.arange(64)[None]}
    for name, shape in shapes().items():
        if name.endswith("glyph_embeddings.embedding.weight"):
            state[name] = (torch.rand(shape, generator=random) > 0.8).float()
        elif "LayerNorm.weight" in name:
            state[name] = 1 + 0.1 * torch.randn(shape, generator=random)
        else:
            state[name] = (0.3 if "pinyin" in name else 0.1) * torch.randn(shape, generator=random)
    state["cls.predictions.decoder.weight"] = state["bert.embeddings.word_embeddings.weight"].clone()  # tied
    state["cls.predictions.decoder.bias"] = state["cls.predictions.bias"].clone()
    return state


def pinyin_lists() -> tuple[dict[str, object], dict[str, list[int]]]:
    """pinyin_map.json and a part of pinyin2tensor.json, as the release has them."""
    symbols = "12345abcdefghijklmnopqrstuvwxyz"
    numbers = {s: n for n, s in enumerate(symbols, 1)}
    lists = {
        r: [*(numbers[s] for s in spelt), *[0] * (8 - len(spelt))]
        for r, spelt in (("de", "de5"), ("le", "le5"), ("hao3", "hao3"))
    }
    return {"idx2char": ["_", *symbols], "char2idx": numbers}, lists


def write_folder(
    folder: Path,
    layout: str = "junnyu",
    seed: int = 0,
    state: dict[str, Tensor] | None = None,
    **changes: object,
) -> Path:
    """Write a tiny ChineseBERT.

    `junnyu` has lists inside tokenizer_config.json; `shannonai` has files in config/ and a plain config.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    torch.save(weights(seed) if state is None else state, folder / "pytorch_model.bin")
    config = {**CONFIG, **changes}
    pinyin_map, lists = pinyin_lists()
    if layout == "shannonai":
        config = {
            n: v
            for n, v in config.items()
            if n not in {"architectures", "glyph_embedding_dim", "pinyin_map_len", "name"}
        }
        (folder / "config").mkdir(exist_ok=True)
        (folder / "config" / "pinyin_map.json").write_text(json.dumps(pinyin_map), encoding="utf-8")
        (folder / "config" / "pinyin2tensor.json").write_text(json.dumps(lists), encoding="utf-8")
        (folder / "config" / "id2pinyin.json").write_text("{}", encoding="utf-8")
    else:
        settings = {
            "do_lower_case": True,
            "tokenizer_class": "ChineseBertTokenizerFast",
            "model_max_length": 512,
            "name_or_path": "x",
        }
        settings |= {"pinyin_map": pinyin_map, "pinyin2tensor": lists, "id2pinyin": {}}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def write_pictures(
    folder: Path, names: tuple[str, ...] = ("b.npy", "a.npy", "c.npy"), rows: int = V
) -> list[np.ndarray]:
    """Write pictures of three fonts into config/; return them in the order of their names."""
    (folder / "config").mkdir(exist_ok=True)
    found = {}
    for n, name in enumerate(names):
        found[name] = np.random.default_rng(n).integers(0, 256, (rows, 24, 24)).astype(np.float64)
        np.save(folder / "config" / name, found[name])
    return [found[name] for name in sorted(found)]
