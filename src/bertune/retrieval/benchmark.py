"""Scores of a search: how high relevant documents of a corpus rank, by a file of judgements."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bertune.console import Console, prefixed
from bertune.data.columns import normalize_name
from bertune.errors import DataError, listed
from bertune.inference.sentence_pipeline import SentencePipeline
from bertune.metrics.bootstrap import bootstrap_interval
from bertune.metrics.ranking import TopDocuments, scores_of_rankings
from bertune.retrieval.corpus import Corpus, CorpusEncoder, CorpusRow, VectorOptions
from bertune.retrieval.judgements import Judgements, as_id
from bertune.types import JSON, Scores

CUTOFFS = (1, 5, 10, 100)
"""The values of k for recall@k."""
MAIN_METRIC = "ndcg@10"
QUERY_ID_NAMES = ("id", "queryid", "qid")
DOCUMENT_ID_NAMES = ("id", "corpusid", "docid", "documentid", "did", "pid", "passageid", "docno")
"""Names of the columns with ids, without case, blanks, "_" and "-"."""
_CHUNK_ROWS = 4096
"""Documents that are encoded and compared together."""
_DEPTH = max(CUTOFFS) + 1
"""Documents of a ranking that are kept; one may be the query itself, and is left out."""


class BenchmarkResult(NamedTuple):
    """How good a search is."""

    scores: Scores
    num_truncated_rows: int
    """Queries and documents that were longer than max_length."""


@dataclass(frozen=True)
class Benchmark:
    """Queries, a corpus, and which of its documents are relevant.

    Attributes:
        queries: a file with an id and a text a row.
        corpus: the same for documents.
        judgements: relevant documents by query.
        judgements_file: where they are from, for messages.
    """

    queries: Corpus
    corpus: Corpus
    judgements: Judgements
    judgements_file: str

    def run(
        self,
        pipeline: SentencePipeline,
        truncate_dim: int | None,
        console: Console,
    ) -> BenchmarkResult:
        """Search the corpus for every query that has a relevant document, and score the rankings.

        Queries and documents get the model's prompts, and are compared by its similarity, as `bertune search`
        does. Memory does not grow with the corpus but for its ids.

        Raises:
            DataError: a row has no id or one that was there before, or the ids of the files do not fit.
        """
        note = prefixed(console)
        queries = self._judged_queries(note)
        documents = _rows_with_ids(self.corpus, DOCUMENT_ID_NAMES, verbose=True)
        numbers = {document: n for n, (document, _) in enumerate(documents)}
        note(f"{len(queries)} queries, {len(numbers)} documents, {self.judgements.num_judged} judgements")
        self._check_documents(queries, numbers, note)
        encode_query, encode_document = (
            CorpusEncoder(pipeline, VectorOptions(prompt_name=name, truncate_dim=truncate_dim), console)
            for name in (pipeline.query_prompt_name, pipeline.document_prompt_name)
        )
        if encode_query.prompt or encode_document.prompt:
            note(f"queries get the prompt {encode_query.prompt!r}, documents {encode_document.prompt!r}")
        query_vectors = encode_query(list(queries.values()))
        top = TopDocuments(query_vectors, _DEPTH, pipeline.similarity_fn_name)
        own: set[str] = set()  # documents that are a query: the same id and the same text
        rows = _rows_with_ids(self.corpus, DOCUMENT_ID_NAMES)
        with console.progress("searching", len(numbers)):
            while chunk := list(itertools.islice(rows, _CHUNK_ROWS)):
                own |= {document for document, row in chunk if queries.get(document) == row.text}
                top.add(encode_document([row.text for _, row in chunk]))
                console.advance(numbers[chunk[-1][0]] + 1)
        encode_query.report("queries")
        encode_document.report("documents")
        scores = self._score(list(queries), numbers, top.documents, own)
        truncated = encode_query.counts.truncated_rows + encode_document.counts.truncated_rows
        return BenchmarkResult(scores, truncated)

    def _judged_queries(self, note: Callable[[str], None]) -> dict[str, str]:
        """Return the text of each query that has a relevant document, by its id."""
        every = {query: row.text for query, row in _rows_with_ids(self.queries, QUERY_ID_NAMES, verbose=True)}
        judged = self.judgements.grades
        relevant = {query for query, grades in judged.items() if any(g > 0 for g in grades.values())}
        chosen = {query: text for query, text in every.items() if query in relevant}
        if not chosen:
            raise DataError(
                f"{self.judgements_file}: judges no query of {self.queries.file}: its ids are "
                f"{listed(judged, 3)}, those of the queries {listed(every, 3)}"
            )
        left_out = {
            f"queries of {self.queries.file} are not judged": [q for q in every if q not in judged],
            "queries have no relevant document": [q for q in judged if q in every and q not in relevant],
            f"judged queries are not in {self.queries.file}": [q for q in judged if q not in every],
        }
        for problem, ids in left_out.items():
            if ids:
                note(f"{len(ids)} {problem}, and are left out: {listed(ids, 3)}")
        return chosen

    def _check_documents(
        self, queries: dict[str, str], numbers: dict[str, int], note: Callable[[str], None]
    ) -> None:
        judged = {d: None for q in queries for d, g in self.judgements.grades[q].items() if g > 0}
        missing = [document for document in judged if document not in numbers]
        if len(missing) == len(judged):
            raise DataError(
                f"{self.corpus.file}: holds no relevant document of {self.judgements_file}: its ids are "
                f"{listed(numbers, 3)}, those of the judgements {listed(judged, 3)}"
            )
        if missing:
            note(
                f"{len(missing)} of {len(judged)} relevant documents are not in {self.corpus.file}; "
                f"they count as not found: {listed(missing, 3)}"
            )

    def _score(
        self,
        queries: Sequence[str],
        numbers: dict[str, int],
        ranking: npt.NDArray[np.int64],
        own: set[str],
    ) -> Scores:
        """Score the ranking (q, k) of each query; a document that is the query itself is left out of it."""
        found = np.zeros((len(queries), max(CUTOFFS)))
        relevant = []
        for place, query in enumerate(queries):
            grades = {d: g for d, g in self.judgements.grades[query].items() if g > 0}
            itself = numbers[query] if query in own and query not in grades else -1
            by_number = {numbers[d]: g for d, g in grades.items() if d in numbers}
            documents = [n for n in ranking[place].tolist() if n != itself][: max(CUTOFFS)]
            found[place, : len(documents)] = [by_number.get(n, 0.0) for n in documents]
            relevant.append(np.array(list(grades.values())))
        result = scores_of_rankings(found, relevant, CUTOFFS)
        interval = bootstrap_interval(lambda each: float(each.mean()), result.per_query[MAIN_METRIC])
        return Scores(MAIN_METRIC, True, result.values, {MAIN_METRIC: interval} if interval else {})


def _rows_with_ids(
    corpus: Corpus, names: Sequence[str], *, verbose: bool = False
) -> Iterator[tuple[str, CorpusRow]]:
    """Yield the id of each row, and the row.

    Raises:
        DataError: a row has no id, or one that an earlier row has.
    """
    lines: dict[str, int] = {}
    for row in corpus.rows(verbose=verbose):
        value = as_id(_id_of(row.raw, names))
        location = f"{corpus.file}:{row.line}"
        if not value:
            raise DataError(
                f"{location}: has no id; give each row a column _id or id, or name the columns of a file "
                "without header, as in data.columns=[id,text]"
            )
        if value in lines:
            raise DataError(f"{location}: has the id {value!r}, which line {lines[value]} has already")
        lines[value] = row.line
        yield value, row


def _id_of(raw: JSON, names: Sequence[str]) -> object:
    if "_id" in raw:
        return raw["_id"]
    columns = {normalize_name(column): column for column in raw}
    return next((raw[columns[name]] for name in names if name in columns), None)
