"""Tiny encoders with random weights, made here: no test needs the network."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"

import hypothesis
import pytest
import torch

# No deadline: the first example imports, and machines are shared.
hypothesis.settings.register_profile("bertune", deadline=None)
hypothesis.settings.load_profile("bertune")

torch.set_num_threads(1)  # tiny models are no faster on two, and the tests run in several processes

ENGLISH = (
    "good bad fine awful great poor red green blue round big small the a is was and not very one two three "
    "dog cat tree house car book"
)
WORDS = [*ENGLISH.split(), *"好坏很不是的我你天地人大小"]
PUNCTUATION = [*"!\"',.:;?-", "。", "，", "！"]
VOCABULARY = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *PUNCTUATION,
    *WORDS,
    *("##s", "##er"),
    *"abcdefghijklmnopqrstuvwxyz0123456789",
]

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}


def make_encoder(folder: Path, kind: str = "bert", seed: int = 0, **changes: object) -> Path:
    """Write a tiny pretrained encoder of an architecture of transformers, with a WordPiece tokenizer."""
    from transformers import AutoConfig, AutoModelForMaskedLM, BertTokenizer

    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    tokenizer = BertTokenizer.from_pretrained(str(folder))
    settings: dict[str, object] = {"vocab_size": len(VOCABULARY), "pad_token_id": 0, **SMALL}
    if kind == "distilbert":
        settings = {
            "vocab_size": len(VOCABULARY),
            "dim": 32,
            "n_layers": 2,
            "n_heads": 4,
            "hidden_dim": 64,
            "max_position_embeddings": 64,
        }
    if kind in {"albert", "electra"}:
        settings["embedding_size"] = 16
    config = AutoConfig.for_model(kind, **{**settings, **changes})
    model = AutoModelForMaskedLM.from_config(config)
    for parameter in model.parameters():  # away from the zeros and ones of a first initialisation
        parameter.data += 0.05 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "vocab.txt").unlink()
    return folder


LONGEST = [
    "tests/cli/test_distributed.py",
    "tests/tasks/test_datasets.py",
    "tests/cli/test_crash.py",
    "tests/test_docs_site.py",
    "tests/cli/test_sharding.py",
    "tests/cli/test_corpora.py",
    "tests/test_distributed_sums.py",
    "tests/test_distributed_gather.py",
]
"""The files that take longest, in the order in which they begin."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the longest files, so that no process of pytest-xdist ends with one of them."""
    order = {config.rootpath / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT."""
    return make_encoder(tmp_path_factory.mktemp("encoder") / "tiny")


@pytest.fixture(scope="session")
def encoder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A tiny encoder of any architecture, made once."""
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            made[kind] = make_encoder(tmp_path_factory.mktemp("encoder") / kind, kind)
        return made[kind]

    return get


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Write a text file into the test's folder; return its path."""

    def put(name: str, content: str | bytes | list[dict[str, object]]) -> str:
        path = tmp_path / name
        if isinstance(content, list):
            content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return put
