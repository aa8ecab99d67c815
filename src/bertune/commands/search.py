"""`bertune search`: the rows of a corpus that are nearest to a query, and near-duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bertune.config.reading import reading_config
from bertune.config.schema import DataConfig
from bertune.console import Console
from bertune.errors import ConfigError, DataError
from bertune.inference.sentence_pipeline import SentencePipeline
from bertune.retrieval.corpus import (
    Corpus,
    VectorOptions,
    corpus_data_config,
    load_sentence_pipeline,
    make_embed_fn,
)
from bertune.retrieval.index import build_index, open_index
from bertune.retrieval.search import Engine, Hit, Index, IndexInfo, NearDuplicates
from bertune.types import JSON


def open_or_build_index(
    pipeline: SentencePipeline, corpus: Corpus, folder: Path, *, rebuild: bool = False
) -> Index:
    """Open the index of a corpus; make it where there is none, or go on where that was stopped.

    Raises:
        ArtifactError: it was made by another model.
        ConfigError: it was made of another corpus, or of this one before it changed.
    """
    fingerprint, source = pipeline.fingerprint(), _state(corpus)
    if (folder / "index.json").is_file() and (folder / "vectors.npy").is_file() and not rebuild:
        index = open_index(folder, fingerprint)
        if index.info.source != source:
            raise ConfigError(
                f"{folder}: was made of another state of {index.info.source.get('file')}; --rebuild makes it anew"
            )
        return index
    options = VectorOptions(prompt_name=pipeline.document_prompt_name, normalize=True)
    encode = make_embed_fn(pipeline, options, corpus.console)
    count, _ = corpus.count_and_hash()
    info = IndexInfo(count, encode([" "]).shape[1], "float16", fingerprint, source)
    with corpus.console.progress("indexing", count):
        build_index(folder, info, corpus.rows(), encode, corpus.console.advance, rebuild=rebuild)
    corpus.console.info(f"index: {count} rows, {folder}")
    return open_index(folder, fingerprint)


def _state(corpus: Corpus) -> JSON:
    path = Path(corpus.file)
    if not path.is_file():
        raise DataError(f"{corpus.file}: no such file; an index is made of a file")
    stat = path.stat()
    return {
        "file": str(path.resolve()),
        "bytes": stat.st_size,
        "changed": stat.st_mtime_ns,
        "data": corpus.data.model_dump(exclude_unset=True),
    }


@dataclass(frozen=True)
class SearchRequest:
    """A corpus to be searched with a model.

    Attributes:
        model_folder: a model of sentence vectors.
        corpus_file: the corpus, a text a row.
        overrides: `data.name=value`, how to read the corpus.
        index_folder: folder of the index; without it FILE.index.
        rebuild: whether to make the index anew.
        console: hears of progress.
        where: `device` and `precision` of `load`.
    """

    model_folder: str | Path
    corpus_file: str
    overrides: Sequence[str] = ()
    index_folder: str | None = None
    rebuild: bool = False
    console: Console = field(default_factory=lambda: Console(quiet=True))
    where: dict[str, Any] = field(default_factory=dict)

    def open(self) -> tuple[SentencePipeline, Index]:
        """Open model and index; the index is made where there is none."""
        pipeline = load_sentence_pipeline(self.model_folder, **self.where)
        corpus = Corpus(
            self.corpus_file, corpus_data_config(pipeline, self.corpus_file, self.overrides), self.console
        )
        return pipeline, open_or_build_index(
            pipeline, corpus, Path(self.index_folder or f"{self.corpus_file}.index"), rebuild=self.rebuild
        )


def search(
    request: SearchRequest, queries: Sequence[str], k: int = 10, engine: Engine = "exact"
) -> list[list[Hit]]:
    """Find the rows of a corpus that are nearest to each query, best first.

    Args:
        request: corpus and model.
        queries: texts.
        k: how many rows to find for each.
        engine: exact, or usearch, which is approximate and an extra.

    Raises:
        BertuneError: the folder, the settings, a row or the index cannot be used.
    """
    pipeline, index = request.open()
    return index.search(pipeline.encode_query(list(queries), normalize_embeddings=True), k, engine)


def near_duplicates(
    request: SearchRequest, threshold: float = 0.9, max_pairs: int = 1000
) -> tuple[NearDuplicates, dict[int, JSON]]:
    """Find the pairs of rows of a corpus whose cosine is at least `threshold`, best first, and the rows they are made of."""
    _, index = request.open()
    with request.console.progress("comparing", index.info.num_rows):
        pairs = index.near_duplicates(threshold, max_pairs, request.console.advance)
    return pairs, index.read_rows(row for pair in pairs.pairs for row in (pair.first, pair.second))


def read_texts(file: str, overrides: Sequence[str] = (), console: Console | None = None) -> list[str]:
    """Read the texts of a file, such as queries."""
    corpus = Corpus(file, reading_config(DataConfig(), file, overrides), console or Console(quiet=True))
    return [text for _, text in corpus.rows(verbose=True)]
