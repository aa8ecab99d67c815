"""A corpus: a file with a text a row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertune.artifact.read import load
from bertune.config.reading import reading_config
from bertune.config.schema import DataConfig
from bertune.console import Console, prefixed
from bertune.data.formats import BadRows, ReadOptions
from bertune.data.labels import get_text
from bertune.data.rows import open_rows
from bertune.errors import ArtifactError, DataError
from bertune.inference.sentence_pipeline import SentencePipeline, truncate_vectors
from bertune.retrieval.writers import EmbedFn
from bertune.types import JSON, Columns

CORPUS_COLUMNS = Columns(("text",), (), "label", target_required=False)
"""What is read from a row of a corpus."""


@dataclass(frozen=True)
class VectorOptions:
    """How texts become vectors: settings of `SentencePipeline.encode`."""

    prompt: str | None = None
    prompt_name: str | None = None
    truncate_dim: int | None = None
    normalize: bool = False


@dataclass(frozen=True)
class Corpus:
    """A file of texts."""

    file: str
    data: DataConfig
    console: Console

    def rows(self, *, verbose: bool = False) -> Iterator[tuple[JSON, str]]:
        """Give each row: its columns and its text.

        Raises:
            DataError: a row cannot be used, unless data.bad_rows is skip.
        """
        note = prefixed(self.console) if verbose else lambda _: None
        faults = BadRows(skip=self.data.bad_rows == "skip")
        for row in open_rows(
            ReadOptions(self.file, self.data, CORPUS_COLUMNS, faults, note, require_target=False)
        ):
            try:
                yield row.raw, get_text(row, "text")
            except DataError as error:
                faults(str(error))
        for line in faults.finish():
            note(line)

    def count_and_hash(self) -> tuple[int, str]:
        """Read it once to its end; return how many rows it has, and a hash of them."""
        digest, count = hashlib.sha256(), 0
        for raw, text in self.rows(verbose=True):
            digest.update(json.dumps([raw, text], ensure_ascii=False, default=str).encode())
            count += 1
        if not count:
            raise DataError(f"{self.file}: no usable row is left")
        return count, digest.hexdigest()


def load_sentence_pipeline(folder: str | Path, **where: Any) -> SentencePipeline:
    """Open a model of sentence vectors.

    Raises:
        ArtifactError: the folder holds another kind of model.
    """
    pipeline = load(folder, **where)
    if not isinstance(pipeline, SentencePipeline):
        kind = type(pipeline.task).__name__.lower()
        raise ArtifactError(
            f"{folder}: is a model of task {kind}, which gives no sentence vectors; train one with task embed or match"
        )
    return pipeline


def corpus_data_config(pipeline: SentencePipeline, file: str, overrides: Sequence[str]) -> DataConfig:
    """Return how a corpus is read: as the training files, with overrides laid over it."""
    data = reading_config(pipeline.task.data, file, overrides)
    given = data.columns
    if isinstance(given, dict):  # parts of pairs are none of a corpus
        data = data.model_copy(update={"columns": {k: v for k, v in given.items() if k == "text"} or None})
    return data


def make_embed_fn(pipeline: SentencePipeline, options: VectorOptions, console: Console) -> EmbedFn:
    before = pipeline.resolve_prompt(options.prompt_name, options.prompt)
    told = False

    def encode(texts: list[str]) -> Any:
        nonlocal told
        vectors = truncate_vectors(
            pipeline.embed_texts([before + text for text in texts]),
            pipeline.truncate_dim if options.truncate_dim is None else options.truncate_dim,
            options.normalize,
        )
        if pipeline.notes and not told:
            told = True
            for line in pipeline.notes:
                console.info(f"data: of the first {len(texts)} texts: {line}")
        return vectors

    return encode
