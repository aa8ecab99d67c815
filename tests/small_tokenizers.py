"""Small tokenizers, trained here on a few sentences, and tiny encoders with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from tests.conftest import SMALL

SENTENCES = [
    "the quick brown fox jumps over the lazy dog and the dog sleeps in the house of the farmer",
    "farming is hard work, says the farmer; working harder makes the hardest harvest lighter",
    "北京是中国的首都，上海是中国最大的城市。北京的城市很大，中国的城市也很多。",
    "we walked, talked and worked; walking, talking and working made us walkers, talkers, workers",
    "机器学习是人工智能的一个分支。深度学习是机器学习的一种方法。",
] * 4
BERT_SPECIAL = ["[PAD]", "[unused1]", "[unused2]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
XLM_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def wordpiece(size: int = 260) -> Tokenizer:
    """A cased WordPiece tokenizer whose special tokens have gaps between their ids, as BERT's have."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=BERT_SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [t for t in content["added_tokens"] if "unused" not in t["content"]]
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", [("[CLS]", 4), ("[SEP]", 5)]
    )
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def unigram(size: int = 220) -> Tokenizer:
    """A Unigram tokenizer with XLM-R's special tokens, the last of which comes at the end."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=size, special_tokens=XLM_SPECIAL[:4], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    content = json.loads(tokenizer.to_str())
    vocab = content["model"]["vocab"]
    vocab.append(["<mask>", 0.0])
    content["added_tokens"].append(
        {**content["added_tokens"][0], "id": len(vocab) - 1, "content": "<mask>", "lstrip": True}
    )
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.post_processor = processors.TemplateProcessing(
        "<s> $A </s>", "<s> $A </s> </s> $B </s>", [("<s>", 0), ("</s>", 2)]
    )
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def make_masked_lm(
    folder: Path, kind: str, tokenizer: Tokenizer, extra_rows: int = 0, **changes: Any
) -> Path:
    """Write a tiny encoder with a head for masked tokens, a tokenizer, and rows that no token has."""
    from transformers import AutoConfig, AutoModelForMaskedLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    is_bert = tokenizer.token_to_id("[PAD]") is not None
    pad = tokenizer.token_to_id("[PAD]" if is_bert else "<pad>")
    sizes: dict[str, Any] = {
        **SMALL,
        "max_position_embeddings": 160,
        "vocab_size": tokenizer.get_vocab_size() + extra_rows,
    }
    if kind == "distilbert":
        names = {"hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads",
                 "intermediate_size": "hidden_dim"}  # fmt: skip
        sizes = {names.get(name, name): value for name, value in sizes.items()}
    if kind == "albert":
        sizes["embedding_size"] = 16
    config = AutoConfig.for_model(kind, **{**sizes, "pad_token_id": pad, **changes})
    model = AutoModelForMaskedLM.from_config(config)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    names = ("pad", "unk", "cls", "sep", "mask")
    tokens = [f"[{n.upper()}]" for n in names] if is_bert else ["<pad>", "<unk>", "<s>", "</s>", "<mask>"]
    special = {f"{name}_token": token for name, token in zip(names, tokens, strict=True)}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **special).save_pretrained(
        folder
    )
    return folder
