"""`bertune search`: the rows of a corpus that are nearest to a query, and near-duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

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
from bertune.retrieval.search import Engine, Hit, Index, IndexInfo, NearDuplicate
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
    corpus_file: str
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
        data = corpus_data_config(pipeline, self.corpus_file, self.overrides)
        corpus = Corpus(self.corpus_file, data, self.console)
        index_folder = Path(self.index_folder or f"{self.corpus_file}.index")
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
    return index.search(pipeline.encode_query(list(queries), normalize_embeddings=True), k, engine)


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
    with request.console.progress("comparing", index.info.num_rows):
        duplicates = index.near_duplicates(threshold, max_pairs, request.console.advance)
    rows = index.read_rows(row for pair in duplicates.pairs for row in (pair.first, pair.second))
    return CorpusDuplicates(duplicates.pairs, duplicates.total, rows)


def open_or_build_index(
    pipeline: SentencePipeline, corpus: Corpus, folder: Path, *, rebuild: bool = False
) -> Index:
    """Open the index of a corpus; build it if there is none, or continue an unfinished one.

    Raises:
        ArtifactError: another model made it.
        ConfigError: it belongs to another corpus, or to an earlier state of this one.
    """
    fingerprint, source = pipeline.fingerprint(), _describe_source(corpus)
    if (folder / "index.json").is_file() and (folder / "vectors.npy").is_file() and not rebuild:
        index = open_index(folder, fingerprint)
        if index.info.source != source:
            raise ConfigError(
                f"{folder}: was made of another state of {index.info.source.get('file')}; "
                "build the index again: --rebuild"
            )
        return index
    options = VectorOptions(prompt_name=pipeline.document_prompt_name, normalize=True)
    encode = make_embed_fn(pipeline, options, corpus.console)
    num_rows, _ = corpus.count_and_hash()
    info = IndexInfo(num_rows, encode([" "]).shape[1], "float16", fingerprint, source)
    with corpus.console.progress("indexing", num_rows):
        build_index(folder, info, corpus.rows(), encode, corpus.console.advance, rebuild=rebuild)
    corpus.console.info(f"index: {num_rows} rows, {folder}")
    return open_index(folder, fingerprint)


def _describe_source(corpus: Corpus) -> JSON:
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


def read_texts(file: str, overrides: Sequence[str] = (), console: Console | None = None) -> list[str]:
    """Read the texts of a data file, such as queries.

    Raises:
        DataError: a row cannot be used.
    """
    corpus = Corpus(file, reading_config(DataConfig(), file, overrides), console or Console(quiet=True))
    return [text for _, text in corpus.rows(verbose=True)]
