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
from bertune.retrieval.corpus import Corpus, How, _encoder, corpus_settings, open_model
from bertune.retrieval.index import build_index, open_index
from bertune.retrieval.search import About, Engine, Hit, Index, Pairs
from bertune.types import JSON


def index_of(pipeline: SentencePipeline, corpus: Corpus, folder: Path, *, anew: bool = False) -> Index:
    """Open the index of a corpus; make it where there is none, or go on where that was stopped.

    Raises:
        ArtifactError: it was made by another model.
        ConfigError: it was made of another corpus, or of this one before it changed.
    """
    fingerprint, source = pipeline.fingerprint(), _state(corpus)
    if (folder / "index.json").is_file() and (folder / "vectors.npy").is_file() and not anew:
        index = open_index(folder, fingerprint)
        if index.about.source != source:
            raise ConfigError(f"{folder}: was made of another state of {index.about.source.get('file')}; --rebuild makes it anew")
        return index
    how = How(prompt_name=pipeline.prompt_for_documents, normalize=True)
    encode = _encoder(pipeline, how, corpus.console)
    count, _ = corpus.counted()
    about = About(count, encode([" "]).shape[1], "float16", fingerprint, source)
    with corpus.console.progress("indexing", count):
        build_index(folder, about, corpus.rows(), encode, corpus.console.advance, anew=anew)
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
class Asked:
    """A corpus to be searched with a model.

    Attributes:
        folder: a model of sentence vectors.
        file: the corpus, a text a row.
        overrides: `data.name=value`, how to read the corpus.
        index: folder of the index; without it FILE.index.
        anew: whether to make the index anew.
        console: hears of progress.
        where: `device` and `precision` of `load`.
    """

    folder: str | Path
    file: str
    overrides: Sequence[str] = ()
    index: str | None = None
    anew: bool = False
    console: Console = field(default_factory=lambda: Console(quiet=True))
    where: dict[str, Any] = field(default_factory=dict)

    def opened(self) -> tuple[SentencePipeline, Index]:
        """Open model and index; the index is made where there is none."""
        pipeline = open_model(self.folder, **self.where)
        corpus = Corpus(self.file, corpus_settings(pipeline, self.file, self.overrides), self.console)
        return pipeline, index_of(pipeline, corpus, Path(self.index or f"{self.file}.index"), anew=self.anew)


def search(asked: Asked, queries: Sequence[str], k: int = 10, engine: Engine = "exact") -> list[list[Hit]]:
    """Find the rows of a corpus that are nearest to each query, best first.

    Args:
        asked: corpus and model.
        queries: texts.
        k: how many rows to find for each.
        engine: exact, or usearch, which is approximate and an extra.

    Raises:
        BertuneError: the folder, the settings, a row or the index cannot be used.
    """
    pipeline, index = asked.opened()
    return index.search(pipeline.encode_query(list(queries), normalize_embeddings=True), k, engine)


def near_duplicates(asked: Asked, threshold: float = 0.9, most: int = 1000) -> tuple[Pairs, dict[int, JSON]]:
    """Find the pairs of rows of a corpus whose cosine is at least `threshold`, best first, and the rows they are made of."""
    _, index = asked.opened()
    with asked.console.progress("comparing", index.about.rows):
        pairs = index.pairs(threshold, most, asked.console.advance)
    return pairs, index.raws(row for pair in pairs.best for row in (pair.first, pair.second))


def texts_of(file: str, overrides: Sequence[str] = (), console: Console | None = None) -> list[str]:
    """Read the texts of a file, such as queries."""
    corpus = Corpus(file, reading_config(DataConfig(), file, overrides), console or Console(quiet=True))
    return [text for _, text in corpus.rows(first_time=True)]
