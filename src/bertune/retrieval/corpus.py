"""A corpus: a file with a text a row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bertune.artifact.read import load
from bertune.config.reading import reading_config
from bertune.config.schema import DataConfig
from bertune.console import Console, prefixed
from bertune.data.labels import get_text
from bertune.data.records import BadRows, ReadOptions
from bertune.data.rows import open_rows
from bertune.errors import ArtifactError, DataError
from bertune.inference.sentence_pipeline import SentencePipeline, truncate_vectors
from bertune.inference.vectors import FloatArray
from bertune.retrieval.writers import EmbedFn
from bertune.types import JSON, Columns

CORPUS_COLUMNS = Columns(("text",), (), "label", target_required=False)
"""The fields that are read from a row of a corpus."""


@dataclass(frozen=True)
class VectorOptions:
    """How texts become vectors: settings of `SentencePipeline.encode`."""

    prompt: str | None = None
    prompt_name: str | None = None
    truncate_dim: int | None = None
    normalize: bool = False


@dataclass(frozen=True)
class Corpus:
    """A file of texts, the settings it is read with, and where its diagnostics are shown."""

    file: str
    data: DataConfig
    console: Console

    def rows(self, *, verbose: bool = False) -> Iterator[tuple[JSON, str]]:
        """Yield each row: its columns and its text. `verbose` shows what is unusual about the file.

        Raises:
            DataError: a row cannot be used, unless data.bad_rows is skip.
        """
        note = prefixed(self.console) if verbose else lambda _: None
        bad_rows = BadRows(skip=self.data.bad_rows == "skip")
        options = ReadOptions(self.file, self.data, CORPUS_COLUMNS, bad_rows, note, require_target=False)
        for row in open_rows(options):
            try:
                yield row.raw, get_text(row, "text")
            except DataError as error:
                bad_rows(str(error))
        for line in bad_rows.finish():
            note(line)

    def count_and_hash(self) -> tuple[int, str]:
        """Read the file to its end; return how many rows it has, and their SHA-256.

        Raises:
            DataError: a row cannot be used, or there are none.
        """
        digest, count = hashlib.sha256(), 0
        for raw, text in self.rows(verbose=True):
            digest.update(json.dumps([raw, text], ensure_ascii=False, default=str).encode())
            count += 1
        if not count:
            raise DataError(f"{self.file}: no usable row is left")
        return count, digest.hexdigest()


def load_sentence_pipeline(
    folder: str | Path, *, device: str = "auto", precision: str = "auto", model_code: str = "never"
) -> SentencePipeline:
    """Open a model of sentence vectors; the arguments are those of `bertune.load`.

    Raises:
        ArtifactError: the folder holds another kind of model.
    """
    pipeline = load(folder, device=device, precision=precision, model_code=model_code)
    if not isinstance(pipeline, SentencePipeline):
        task = type(pipeline.task).__name__.lower()
        raise ArtifactError(
            f"{folder}: is a model of task {task}, which gives no sentence vectors; "
            "train one with task embed or match"
        )
    return pipeline


def corpus_data_config(pipeline: SentencePipeline, file: str, overrides: Sequence[str]) -> DataConfig:
    """Return the settings of a corpus: those of the training files, with overrides (`data.name=value`)."""
    data = reading_config(pipeline.task.data, file, overrides)
    if isinstance(data.columns, dict):  # a corpus has no second text and no label
        columns = {field: column for field, column in data.columns.items() if field == "text"}
        data = data.model_copy(update={"columns": columns or None})
    return data


def make_embed_fn(pipeline: SentencePipeline, options: VectorOptions, console: Console) -> EmbedFn:
    """Return a function from texts to vectors (n, dim), which shows notes about the texts once."""
    prefix = pipeline.resolve_prompt(options.prompt_name, options.prompt)
    has_shown_notes = False

    def encode(texts: list[str]) -> FloatArray:
        nonlocal has_shown_notes
        vectors = truncate_vectors(
            pipeline.embed_texts([prefix + text for text in texts]),
            pipeline.truncate_dim if options.truncate_dim is None else options.truncate_dim,
            options.normalize,
        )
        if pipeline.notes and not has_shown_notes:
            has_shown_notes = True
            for line in pipeline.notes:
                console.info(f"data: of the first {len(texts)} texts: {line}")
        return vectors

    return encode
