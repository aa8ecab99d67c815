"""Whole corpora: texts to files of vectors, and search by meaning."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bertune.config import DataConfig
from bertune.data.formats import Faults, Reading
from bertune.data.labels import text_of
from bertune.data.rows import open_table
from bertune.errors import ArtifactError, ConfigError, DataError
from bertune.run import data_settings, load, teller
from bertune.ship.encoding import SentencePipeline, cut
from bertune.ship.search import About, Engine, Hit, Index, Pairs, build_index, open_index
from bertune.ship.vectors import Encode, Form, Job, write
from bertune.talk import Talk
from bertune.types import JSON, Columns

CORPUS = Columns(("text",), (), "label", target_needed=False)
"""What is read from a row of a corpus."""


@dataclass(frozen=True)
class How:
    """How texts become vectors: settings of `SentencePipeline.encode`."""

    prompt: str | None = None
    prompt_name: str | None = None
    width: int | None = None
    normalize: bool = False


@dataclass(frozen=True)
class Corpus:
    """A file of texts."""

    file: str
    data: DataConfig
    talk: Talk

    def rows(self, *, first_time: bool = False) -> Iterator[tuple[JSON, str]]:
        """Give each row: its columns and its text.

        Raises:
            DataError: a row cannot be used, unless data.bad_rows is skip.
        """
        note = teller(self.talk) if first_time else lambda _: None
        faults = Faults(skip=self.data.bad_rows == "skip")
        for row in open_table(Reading(self.file, self.data, CORPUS, faults, note, need_target=False)):
            try:
                yield row.raw, text_of(row, "text")
            except DataError as error:
                faults(str(error))
        for line in faults.settle():
            note(line)

    def counted(self) -> tuple[int, str]:
        """Read it once to its end; return how many rows it has, and a hash of them."""
        digest, count = hashlib.sha256(), 0
        for raw, text in self.rows(first_time=True):
            digest.update(json.dumps([raw, text], ensure_ascii=False, default=str).encode())
            count += 1
        if not count:
            raise DataError(f"{self.file}: no usable row is left")
        return count, digest.hexdigest()


def open_model(folder: str | Path, **where: Any) -> SentencePipeline:
    """Open a model of sentence vectors.

    Raises:
        ArtifactError: the folder holds another kind of model.
    """
    pipeline = load(folder, **where)
    if not isinstance(pipeline, SentencePipeline):
        kind = type(pipeline.task).__name__.lower()
        raise ArtifactError(f"{folder}: is a model of task {kind}, which gives no sentence vectors; train one with task embed or match")
    return pipeline


def embed(
    folder: str | Path, file: str, output: str, overrides: Sequence[str] = (), *,
    how: How | None = None, form: Form = "float32", talk: Talk | None = None, **where: Any,
) -> tuple[int, int]:  # fmt: skip
    """Write the vector of every row of a file, in its order, in memory that does not grow with it.

    Args:
        folder: what `bertune train` has written, a folder of sentence-transformers, or minilm.
        file: a data file with a text a row.
        output: a name that ends in .npy, which `numpy.load(mmap_mode="r")` opens, or .parquet, which keeps every column of the file.
        overrides: `data.name=value`.
        how: prompt, width and length of the vectors.
        form: float32, float16, int8 or binary; see `bertune.ship.vectors.in_form`.
        talk: hears of progress.
        where: `device` and `precision` of `load`.

    Returns:
        How many rows there are, and how many of them an earlier call, which was stopped, had done.

    Raises:
        BertuneError: the folder, the settings or a row cannot be used.
    """
    if file == "-":
        raise ConfigError("-o: standard input can be read only once, so a file of vectors is made of a file; leave -o out for JSON lines")
    talk, how = talk or Talk(quiet=True), how or How()
    pipeline = open_model(folder, **where)
    corpus = Corpus(file, corpus_settings(pipeline, file, overrides), talk)
    encode = _encoder(pipeline, how, talk)
    width = encode([" "]).shape[1]
    count, digest = corpus.counted()
    precision = pipeline.model.encoder.numerics.precision  # or a job that goes on in another one mixes two kinds of vectors
    identity = {"model": pipeline.fingerprint(), "rows": digest, "how": vars(how), "precision": precision}
    job = Job(Path(output), count, width, form, identity)
    with talk.bar("embedding", count):
        before = write(job, corpus.rows(), encode, talk.tick)
    if before:
        talk.say(f"rows: {before} of {count} were done already")
    return count, before


def embed_stream(
    folder: str | Path, file: str, overrides: Sequence[str] = (), *, how: How | None = None, talk: Talk | None = None, **where: Any
) -> Iterator[JSON]:
    """Give every row of a file, or of standard input ("-"), with its vector under `embedding`."""
    talk, how = talk or Talk(quiet=True), how or How()
    pipeline = open_model(folder, **where)
    corpus = Corpus(file, corpus_settings(pipeline, file, overrides), talk)
    encode = _encoder(pipeline, how, talk)
    rows = corpus.rows(first_time=True)
    while chunk := list(itertools.islice(rows, 1024)):
        for (raw, _), vector in zip(chunk, encode([text for _, text in chunk]), strict=True):
            yield {**raw, "embedding": vector.tolist()}


def corpus_settings(pipeline: SentencePipeline, file: str, overrides: Sequence[str]) -> DataConfig:
    """Return how a corpus is read: as the training files, with overrides laid over it."""
    data = data_settings(pipeline.task.data, file, overrides)
    given = data.columns
    if isinstance(given, dict):  # parts of pairs are none of a corpus
        data = data.model_copy(update={"columns": {k: v for k, v in given.items() if k == "text"} or None})
    return data


def _encoder(pipeline: SentencePipeline, how: How, talk: Talk) -> Encode:
    before = pipeline.prompt_of(how.prompt_name, how.prompt)
    told = False

    def encode(texts: list[str]) -> Any:
        nonlocal told
        vectors = cut(
            pipeline.vectors([before + text for text in texts]), pipeline.truncate_dim if how.width is None else how.width, how.normalize
        )
        if pipeline.findings and not told:
            told = True
            for line in pipeline.findings:
                talk.say(f"data: of the first {len(texts)} texts: {line}")
        return vectors

    return encode


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
    encode = _encoder(pipeline, how, corpus.talk)
    count, _ = corpus.counted()
    about = About(count, encode([" "]).shape[1], "float16", fingerprint, source)
    with corpus.talk.bar("indexing", count):
        build_index(folder, about, corpus.rows(), encode, corpus.talk.tick, anew=anew)
    corpus.talk.say(f"index: {count} rows, {folder}")
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
        talk: hears of progress.
        where: `device` and `precision` of `load`.
    """

    folder: str | Path
    file: str
    overrides: Sequence[str] = ()
    index: str | None = None
    anew: bool = False
    talk: Talk = field(default_factory=lambda: Talk(quiet=True))
    where: dict[str, Any] = field(default_factory=dict)

    def opened(self) -> tuple[SentencePipeline, Index]:
        """Open model and index; the index is made where there is none."""
        pipeline = open_model(self.folder, **self.where)
        corpus = Corpus(self.file, corpus_settings(pipeline, self.file, self.overrides), self.talk)
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
    with asked.talk.bar("comparing", index.about.rows):
        pairs = index.pairs(threshold, most, asked.talk.tick)
    return pairs, index.raws(row for pair in pairs.best for row in (pair.first, pair.second))


def texts_of(file: str, overrides: Sequence[str] = (), talk: Talk | None = None) -> list[str]:
    """Read the texts of a file, such as queries."""
    corpus = Corpus(file, data_settings(DataConfig(), file, overrides), talk or Talk(quiet=True))
    return [text for _, text in corpus.rows(first_time=True)]
