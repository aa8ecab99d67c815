"""A corpus: a file with a text a row."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bertune.artifact.read import load
from bertune.config.reading import reading_config
from bertune.config.schema import DataConfig
from bertune.console import Console, prefixed
from bertune.data.dataset import TokenCounts
from bertune.data.labels import get_text
from bertune.data.records import BadRows, ReadOptions
from bertune.data.rows import RowReader, open_rows
from bertune.errors import ArtifactError, ConfigError, DataError
from bertune.inference.sentence_pipeline import SentencePipeline, refuse_truncation, truncate_vectors
from bertune.inference.vectors import FloatArray
from bertune.types import JSON, Columns

CORPUS_COLUMNS = Columns(("text",), (), "label", target_required=False, spreadable=("text",))
"""The fields that are read from a row of a corpus."""


@dataclass(frozen=True)
class VectorOptions:
    """How texts become vectors: settings of `SentencePipeline.encode`."""

    prompt: str | None = None
    prompt_name: str | None = None
    truncate_dim: int | None = None
    normalize: bool = False


class CorpusRow(NamedTuple):
    """A row of a corpus."""

    raw: JSON
    """Its columns."""
    text: str
    line: int
    """The line of the file on which it begins; for parquet and the Hub, the number of the row."""


class CorpusSummary(NamedTuple):
    """What one pass over a corpus shows."""

    num_rows: int
    digest: str
    """SHA-256 of the rows."""
    has_gaps: bool
    """Whether row n is not on the nth line after the first row: rows were left out, or have several lines."""


@dataclass(frozen=True)
class Corpus:
    """A file of texts, the settings it is read with, and where its diagnostics are shown."""

    file: str
    data: DataConfig
    console: Console
    columns: Columns = CORPUS_COLUMNS
    """The fields of a row, and the names of their columns."""

    def rows(self, *, verbose: bool = False) -> Iterator[CorpusRow]:
        """Yield each row. `verbose` shows what is unusual about the file.

        Raises:
            DataError: a row cannot be used, unless data.bad_rows is skip.
        """
        note = prefixed(self.console) if verbose else lambda _: None
        bad_rows = BadRows(skip=self.data.bad_rows == "skip")
        reader = self._open(bad_rows, note)
        if reader.header != ["text"]:
            note(reader.describe())
        for row in reader:
            try:
                yield CorpusRow(row.raw, get_text(row, "text"), row.location.line)
            except DataError as error:
                bad_rows(str(error))
        for line in bad_rows.finish():
            note(line)

    def _open(self, bad_rows: BadRows, note: Callable[[str], None]) -> RowReader:
        options = ReadOptions(self.file, self.data, self.columns, bad_rows, note, require_target=False)
        return open_rows(options)

    def text_columns(self) -> str:
        """Return the column that texts are read from; several with commas between them.

        Raises:
            DataError: the file cannot be read, or has no such column.
        """
        names = self._open(BadRows(skip=True), lambda _: None).mapping["text"]
        return names if isinstance(names, str) else ", ".join(names)

    def scan(self) -> CorpusSummary:
        """Read the file to its end, and show what is unusual about it.

        Raises:
            DataError: a row cannot be used, or there are none.
        """
        digest, num_rows, first_line, has_gaps = hashlib.sha256(), 0, 0, False
        for row in self.rows(verbose=True):
            first_line = first_line or row.line
            has_gaps = has_gaps or row.line != first_line + num_rows
            digest.update(_row_bytes(row))
            num_rows += 1
        if not num_rows:
            raise DataError(f"{self.file}: no usable row is left")
        return CorpusSummary(num_rows, digest.hexdigest(), has_gaps)

    def rows_again(self, summary: CorpusSummary) -> Iterator[CorpusRow]:
        """Yield each row, and check at the end that they are those that `scan` has seen.

        Raises:
            DataError: the file has changed.
        """
        digest = hashlib.sha256()
        for row in self.rows():
            digest.update(_row_bytes(row))
            yield row
        if digest.hexdigest() != summary.digest:
            raise DataError(
                f"{self.file}: has changed while it was read; run it again on a file that does not change"
            )


def _row_bytes(row: CorpusRow) -> bytes:
    text = json.dumps([row.raw, row.text], ensure_ascii=False, default=_describe_value)
    return text.encode(errors="surrogatepass")


def _describe_value(value: object) -> str:
    """Return a value that JSON does not know as text, without its place in memory."""
    return re.sub(r" at 0x[0-9A-Fa-f]+", "", str(value))


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


def corpus_columns(pipeline: SentencePipeline) -> Columns:
    """Return the fields of a corpus: columns that the model was trained on come before well-known names."""
    return replace(CORPUS_COLUMNS, text_aliases=pipeline.task.text_columns)


def corpus_data_config(pipeline: SentencePipeline, file: str, overrides: Sequence[str]) -> DataConfig:
    """Return the settings of a corpus: those of the training files, with overrides (`data.name=value`)."""
    data = reading_config(pipeline.task.data, file, overrides)
    if isinstance(data.columns, dict):  # a corpus has no second text and no label
        columns = {field: column for field, column in data.columns.items() if field == "text"}
        data = data.model_copy(update={"columns": columns or None})
    return data


class CorpusEncoder:
    """Texts to their vectors (n, dim), as some options say; counts what became of the texts.

    Raises:
        ConfigError: there is no such prompt, two are named, or the vectors are narrower than `truncate_dim`.
    """

    def __init__(self, pipeline: SentencePipeline, options: VectorOptions, console: Console) -> None:
        if options.prompt is not None and options.prompt_name is not None:
            raise ConfigError(
                "prompt and prompt_name: two prompts are given, and a text gets one; leave one of them out"
            )
        if options.prompt_name == "":
            raise ConfigError(
                f"prompt_name: is empty; this model has {', '.join(pipeline.prompts) or 'no prompts'}"
            )
        self._pipeline = pipeline
        self._console = console
        self.counts = TokenCounts()
        self._normalize = options.normalize
        self.prompt: str = pipeline.resolve_prompt(options.prompt_name, options.prompt)
        self.truncate_dim: int | None = (
            pipeline.truncate_dim if options.truncate_dim is None else options.truncate_dim
        )
        refuse_truncation(pipeline.model, self.truncate_dim)
        full_width = pipeline.get_embedding_dimension()
        self.dim: int = self._finish(np.zeros((1, full_width), np.float32)).shape[1]
        """Width of the vectors."""
        if options.prompt == "":
            default = pipeline.resolve_prompt(None, None)
            left_out = f"; the model's own, {default!r}, is left out" if default else ""
            console.info(f"prompt: is empty, so nothing is put before a text{left_out}")

    def __call__(self, texts: Sequence[str]) -> FloatArray:
        """Return the vectors of texts (n, dim)."""
        vectors = self._pipeline.embed_texts([self.prompt + text for text in texts])
        self.counts += self._pipeline.token_counts
        return self._finish(vectors)

    def _finish(self, vectors: FloatArray) -> FloatArray:
        return truncate_vectors(vectors, self.truncate_dim, self._normalize)

    def settings(self) -> JSON:
        """Return what decides the vectors besides the model, as JSON."""
        return {"prompt": self.prompt, "truncate_dim": self.truncate_dim, "normalize": self._normalize}

    def report(self, name: str = "data") -> None:
        """Show how many of all texts were truncated, and whether the vocabulary lacks many tokens."""
        for line in self.counts.lines(self._pipeline.max_seq_length):
            self._console.info(f"{name}: {line}")
