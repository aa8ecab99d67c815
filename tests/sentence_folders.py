"""Folders that sentence-transformers writes, and rows about the words that tiny encoders know."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

NOUNS, WORDS = ["dog", "cat", "tree", "house", "car", "book"], ["good", "bad", "fine", "red"]
PAIRS: list[dict[str, Any]] = [
    {"text": f"the {n} is {a}", "text_b": f"a {a} {n}"} for n in NOUNS for a in WORDS
]
SCORED = [{**row, "label": (7 * n) % 5} for n, row in enumerate(PAIRS)]
TEXTS = [
    "the dog is good",
    "The DOG is Good",
    "a",
    "天 很 好",
    "not very great , is it ?",
    "big red house " * 9,
]
Layers = Sequence[tuple[int, torch.nn.Module]]
"""Width and activation of each dense layer."""


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Nothing that sentence-transformers or transformers say is shown."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def save_sentence_folder(
    encoder: Path, folder: Path, pooling: Any = "mean", dense: Layers = (), *, normalize: bool = False,
    max_length: int | None = None, **settings: Any,
) -> Any:  # fmt: skip
    """Save a folder with the installed sentence-transformers; return the model as it opens it again."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

    with silenced():
        torch.manual_seed(5)
        limit = {"max_seq_length": max_length} if max_length else {}
        modules: list[torch.nn.Module] = [Transformer(str(encoder), **limit), Pooling(32, pooling)]
        width = modules[1].get_embedding_dimension()
        for out, activation in dense:
            modules.append(Dense(width, out, activation_function=activation))
            width = out
        modules += [Normalize()] if normalize else []
        SentenceTransformer(modules=modules, device="cpu", **settings).save(
            str(folder), create_model_card=False
        )
    return open_sentence_folder(folder)


def open_sentence_folder(folder: Path) -> Any:
    """The folder in sentence-transformers."""
    from sentence_transformers import SentenceTransformer

    with silenced():
        return SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def write_rows(file: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write rows as JSON lines."""
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return file
