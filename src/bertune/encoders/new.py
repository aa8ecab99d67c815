"""The folder of an encoder that begins from nothing: a tokenizer trained on texts, weights drawn by a seed.

From there on it is a pretrained folder as any other. Weights are drawn by the rule of BERT's authors (Devlin
et al. 2018; `modeling_bert.py` of transformers): normal with a standard deviation of 0.02, biases 0, norms 1,
the vector of [PAD] 0.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer as Rust

from bertune.config.new_encoder import SPECIAL_TOKENS, NewEncoder
from bertune.encoders.bert import Bert
from bertune.encoders.families.bert_like import BERT
from bertune.errors import ConfigError
from bertune.files import remove_folder, unique_part_of, write_json
from bertune.tensor_file import write_tensors
from bertune.text.train_tokenizer import Note, tokenizer_settings, train_tokenizer
from bertune.types import JSON

ORIGIN = "origin.json"
"""The file of such a folder that says what it was made of; no other folder has it."""


def make_encoder_folder(
    folder: Path, texts: Iterable[str], options: NewEncoder, seed: int, note: Note, origin: JSON | None = None
) -> None:
    """Train a tokenizer, draw an encoder, and write both as a folder, whole or not at all.

    Args:
        folder: where it goes; one that is there is replaced.
        texts: what the tokenizer learns from.
        options: size and tokenizer.
        seed: decides the weights.
        note: called with each line that a user should see.
        origin: what tells this folder from one of other rows or settings.

    Raises:
        DataError: no tokenizer can be trained on the texts.
        ConfigError: the folder cannot be written, or memory does not suffice.
    """
    tokenizer = train_tokenizer(texts, options, note)
    config = bert_config(options, tokenizer.get_vocab_size())
    part = unique_part_of(folder)
    try:
        part.mkdir(parents=True)
        _write(part, tokenizer, draw_encoder(config, seed), options)
        write_json(part / ORIGIN, origin or {})
        remove_folder(folder)
        part.replace(folder)
    except OSError as error:
        raise ConfigError(f"out: {str(folder)!r} cannot be written: {error.strerror or error}") from None
    except (RuntimeError, MemoryError):
        raise ConfigError(
            f"options.new: an encoder of this size does not fit into memory ({options.describe()}); make it "
            "smaller"
        ) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
        with contextlib.suppress(OSError):
            folder.parent.rmdir()  # which is empty where nothing came of it


def bert_config(options: NewEncoder, vocab_size: int) -> JSON:
    """Return config.json of a BERT."""
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        **BERT.defaults,
        "vocab_size": vocab_size,
        "hidden_size": options.hidden_size,
        "num_hidden_layers": options.layers,
        "num_attention_heads": options.num_heads,
        "intermediate_size": options.feed_forward_size,
        "max_position_embeddings": options.max_positions,
        "pad_token_id": SPECIAL_TOKENS.index("[PAD]"),
        "dtype": "float32",
    }


def draw_encoder(config: JSON, seed: int) -> Bert:
    """Return an encoder with weights drawn by a seed; torch's own random state stays as it is."""
    encoder = Bert(config, BERT)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder.init_weights([name for name, _ in encoder.named_parameters()])
    with torch.no_grad():
        encoder.word_embeddings()[config["pad_token_id"]] = 0.0
    return encoder


def _write(folder: Path, tokenizer: Rust, encoder: Bert, options: NewEncoder) -> None:
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    write_json(folder / "tokenizer_config.json", tokenizer_settings(options))
    weights = {name: tensor.detach().contiguous() for name, tensor in encoder.hf_state_dict().items()}
    write_tensors(folder / "model.safetensors", weights, {"format": "pt"}, durable=True)
    write_json(folder / "config.json", encoder.hf_config())
