"""`bertune search`: the rows of a corpus that are nearest to a query, and near-duplicates."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from bertune.config.reading import reading_config
from bertune.config.schema import DataConfig
from bertune.console import Console
from bertune.errors import ArtifactError, ConfigError, DataError
from bertune.files import expand_user, locked, sha256
from bertune.inference.sentence_pipeline import SentencePipeline
from bertune.retrieval.corpus import (
    Corpus,
    CorpusEncoder,
    CorpusRow,
    VectorOptions,
    corpus_columns,
    corpus_data_config,
    load_sentence_pipeline,
)
from bertune.retrieval.index import build_index, has_index, has_older_index, open_index
from bertune.retrieval.search import Engine, Hit, Index, IndexInfo, NearDuplicate
from bertune.retrieval.writers import report_write_errors
from bertune.types import JSON


@dataclass(frozen=True)
class SearchRequest:
    """A corpus to search, and the model to search it with.

    Attributes:
        model_folder: a model of sentence vectors.
        corpus_file: a data file with a text a row.
        overrides: `data.name=value`, how to read the corpus.
        index_folder: the folder of the index; without it `corpus_file` and ".index".
        rebuild: build the index again.
        device: auto, cpu, cuda or mps.
        precision: auto, fp32, bf16 or fp16; or int8, on processors with units for it.
        model_code: "trusted" runs the Python code that the folder brings for its encoder; read it first.
        console: shows progress; without it nothing is shown.
    """

    model_folder: str | Path
    corpus_file: str | Path
    overrides: Sequence[str] = ()
    index_folder: str | Path | None = None
    rebuild: bool = False
    device: str = "auto"
    precision: str = "auto"
    model_code: str = "never"
    console: Console = field(default_factory=lambda: Console(quiet=True))

    def open(self) -> tuple[SentencePipeline, Index]:
        """Open the model and the index; build the index if there is none.

        Raises:
            BertuneError: the folder, a setting, a row or the index cannot be used.
        """
        pipeline = load_sentence_pipeline(
            self.model_folder, device=self.device, precision=self.precision, model_code=self.model_code
        )
        corpus_file = expand_user(self.corpus_file)
        data = corpus_data_config(pipeline, corpus_file, self.overrides)
        corpus = Corpus(corpus_file, data, self.console, corpus_columns(pipeline))
        index_folder = Path(expand_user(self.index_folder or f"{corpus_file}.index"))
        return pipeline, open_or_build_index(pipeline, corpus, index_folder, rebuild=self.rebuild)


@dataclass(frozen=True)
class CorpusDuplicates:
    """The near-duplicates of a corpus."""

    pairs: list[NearDuplicate]
    """The highest score first."""
    total: int
    """How many pairs reach the threshold, those beyond `max_pairs` included."""
    rows: dict[int, JSON]
    """The columns of the rows in `pairs`, by row number."""
    lines: dict[int, int]
    """The line of the corpus on which each of these rows begins."""


def search(
    request: SearchRequest, queries: Sequence[str], k: int = 10, engine: Engine = "exact"
) -> list[list[Hit]]:
    """Find the rows of a corpus that are nearest to each query, best first.

    Args:
        request: corpus and model.
        queries: texts.
        k: how many rows to find for each query.
        engine: exact, or usearch, which is approximate and an extra.

    Raises:
        BertuneError: the folder, a setting, a row or the index cannot be used.
    """
    pipeline, index = request.open()
    vectors = pipeline.encode_query(list(queries), normalize_embeddings=index.info.similarity == "cosine")
    for line in pipeline.notes:
        request.console.info(f"queries: {line}")
    return index.search(vectors, k, engine)


def near_duplicates(
    request: SearchRequest, threshold: float = 0.9, max_pairs: int = 1000
) -> CorpusDuplicates:
    """Find the pairs of rows of a corpus whose cosine is at least `threshold`, best first.

    Args:
        request: corpus and model.
        threshold: -1 to 1.
        max_pairs: how many pairs to return.

    Raises:
        BertuneError: the folder, a setting, a row or the index cannot be used.
    """
    _, index = request.open()
    if index.info.similarity != "cosine":
        request.console.info(f"pairs: compared by cosine; the model compares by {index.info.similarity}")
    with request.console.progress("comparing", index.info.num_rows):
        duplicates = index.near_duplicates(threshold, max_pairs, request.console.advance)
    rows = index.read_rows(row for pair in duplicates.pairs for row in (pair.first, pair.second))
    lines = {row: int(index.lines[row]) for row in rows}
    return CorpusDuplicates(duplicates.pairs, duplicates.total, rows, lines)


def open_or_build_index(
    pipeline: SentencePipeline, corpus: Corpus, folder: Path, *, rebuild: bool = False
) -> Index:
    """Open the index of a corpus; build it if there is none, or continue an unfinished one.

    Of several calls at once one builds it, and the others wait for it. Without the file of the corpus, its
    index is used as it is.

    Raises:
        ArtifactError: another model made it.
        ConfigError: it belongs to another corpus, to other content of this one, or to other prompts.
    """
    encode = CorpusEncoder(pipeline, VectorOptions(prompt_name=pipeline.document_prompt_name), corpus.console)
    builder = _IndexBuilder(folder, pipeline, corpus, encode)
    if not rebuild:
        try:
            index = builder.open()
        except ArtifactError:
            if not os.access(folder, os.W_OK) or not Path(corpus.file).exists():
                raise
            index = None  # a call that builds it again may be the reason: wait for its end
        if index is not None:
            return index
    return builder.build(rebuild=rebuild)


@dataclass(frozen=True)
class _IndexBuilder:
    """Opens or builds the index of a corpus in a folder."""

    folder: Path
    pipeline: SentencePipeline
    corpus: Corpus
    encode: CorpusEncoder

    @cached_property
    def _fingerprint(self) -> str:
        return self.pipeline.fingerprint()

    @property
    def _settings(self) -> JSON:
        """What decides the vectors besides the model: they are stored for its own similarity."""
        return {"prompt": self.encode.prompt, "truncate_dim": self.encode.truncate_dim}

    def open(self) -> Index | None:
        """Open a finished index; None where there is none of today's format."""
        if not has_index(self.folder) or has_older_index(self.folder):
            return None
        index = open_index(self.folder, self._fingerprint)
        wanted = {**self._settings, "similarity": self.pipeline.similarity_fn_name}
        self._check_equal({**index.info.settings, "similarity": index.info.similarity}, wanted)
        if Path(self.corpus.file).exists():
            self._check_equal(index.info.source, self._source)
        else:
            self.corpus.console.info(
                f"index: {self.corpus.file} is not there; the rows that {self.folder} has kept are searched"
            )
        return index

    def build(self, *, rebuild: bool) -> Index:
        """Build the index, or open what another call has built meanwhile."""
        source, console = self._source, self.corpus.console
        with report_write_errors(self.folder, "--index"):
            self.folder.mkdir(parents=True, exist_ok=True)

        def on_wait(owner: str) -> None:
            console.info(f"index: {self.folder} is being built by {owner}; waiting for its end")

        with locked(self.folder / "index.json", on_wait):
            index = None if rebuild else self.open()
            if index is not None:
                return index
            if has_older_index(self.folder):
                console.info(
                    f"index: {self.folder} is of an earlier version of bertune, which did not write down "
                    "prompts and similarity; it is built again"
                )
                rebuild = True
            summary = self.corpus.scan()
            info = IndexInfo(
                summary.num_rows,
                self.encode.dim,
                "float16" if self.pipeline.similarity_fn_name == "cosine" else "float32",
                self._fingerprint,
                source,
                self._settings,
                self.pipeline.similarity_fn_name,
            )
            precision = self.pipeline.model.encoder.numerics.precision
            rows = ((row.raw, row.text, row.line) for row in self.corpus.rows_again(summary))
            with console.progress("indexing", info.num_rows):
                build_index(
                    self.folder,
                    info,
                    rows,
                    self.encode,
                    console.advance,
                    precision=precision,
                    rebuild=rebuild,
                )
            self.encode.report()
            console.info(f"index: {info.num_rows} rows, {self.folder}")
            return open_index(self.folder, info.model_fingerprint)

    def _check_equal(self, there: JSON, here: JSON) -> None:
        """Raise a ConfigError that names the first value that differs."""
        for name, value in here.items():
            if there.get(name) == value:
                continue
            if name == "sha256":
                problem = f"was made of other content than {self.corpus.file} has now"
            else:
                problem = f"was made with another {name}: {there.get(name)!r} there, {value!r} here"
            raise ConfigError(f"{self.folder}: {problem}; build the index again: --rebuild")

    @cached_property
    def _source(self) -> JSON:
        """Say which corpus: its bytes, not its place, and how it is read."""
        path = Path(self.corpus.file)
        if not path.is_file():
            raise DataError(f"{self.corpus.file}: no such file; an index is made of a file")
        reading = self.corpus.data.model_dump(mode="json", include=set(_READING))
        settings = {f"data.{name}": reading[name] for name in _READING}
        return {"sha256": sha256(path), **settings, "text column": self.corpus.text_columns()}


_READING = ("columns", "format", "delimiter", "quoting", "encoding", "bad_rows")
"""Settings of `data` that decide which rows and texts a corpus has."""


def read_queries(file: str, overrides: Sequence[str] = (), console: Console | None = None) -> list[CorpusRow]:
    """Read the rows of a file of queries.

    Raises:
        DataError: a row cannot be used.
    """
    corpus = Corpus(file, reading_config(DataConfig(), file, overrides), console or Console(quiet=True))
    return list(corpus.rows(verbose=True))
