"""Scores of a search by judgements: BEIR's and TREC's files, the figures of sentence-transformers and scikit-learn."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import pearsonr
from sklearn.metrics import ndcg_score
from tests.sentence_folders import save_sentence_folder, write_rows
from typer.testing import CliRunner

import bertune
from bertune.cli.app import app
from bertune.commands.evaluate import SearchFiles
from bertune.console import Console
from bertune.errors import ConfigError, DataError
from bertune.metrics.ranking import TopDocuments, nearest_neighbors, scores_of_rankings
from bertune.retrieval.judgements import read_judgements

NOUNS = ["dog", "cat", "tree", "house", "car", "book"]
CORPUS = [
    {"_id": f"d{n}", "title": f"about a {noun}", "text": f"the {noun} is {word}"}
    for n, (noun, word) in enumerate((noun, word) for noun in NOUNS for word in ("good", "bad", "red"))
]
QUERIES = [{"_id": f"q{n}", "text": f"a {noun} which is good"} for n, noun in enumerate(NOUNS)]
GRADED = {
    "q0": {"d0": 2, "d1": 1, "d17": 3},
    "q1": {"d3": 1},
    "q2": {"d6": 2, "d8": 1},
    "q3": {"d1": 1, "d2": 0},
}

PAIRS = [(q, d, g) for q, grades in GRADED.items() for d, g in grades.items()]
FORMS = {
    "beir.tsv": "query-id\tcorpus-id\tscore\n" + "".join(f"{q}\t{d}\t{g}\n" for q, d, g in PAIRS),
    "plain.tsv": "".join(f"{q}\t{d}\t{g}\n" for q, d, g in PAIRS),
    "trec.txt": "".join(f"{q} 0 {d} {g}\n" for q, d, g in PAIRS),
    "trec.tsv": "".join(f"{q}\t0\t{d}\t{g}\n" for q, d, g in PAIRS),
    "crlf.tsv": "query-id\tcorpus-id\tscore\r\n" + "".join(f"{q}\t{d}\t{g}\r\n" for q, d, g in PAIRS),
    "blank.qrels": "\n".join(f"{q}   0  {d}   {g}" for q, d, g in PAIRS) + "\n\n",
    "turned.csv": "score,corpus-id,query-id\n" + "".join(f"{g},{d},{q}\n" for q, d, g in PAIRS),
    "floats.tsv": "query_id\tdoc_id\trelevance\n" + "".join(f"{q}\t{d}\t{g:.1f}\n" for q, d, g in PAIRS),
    "lines.jsonl": "".join(json.dumps({"query-id": q, "corpus-id": d, "score": g}) + "\n" for q, d, g in PAIRS),
}  # fmt: skip


@pytest.mark.parametrize("name", list(FORMS))
def test_judgements_in_every_form(tmp_path, name):
    (tmp_path / name).write_bytes(FORMS[name].encode())
    judgements = read_judgements(str(tmp_path / name))
    assert judgements.grades == GRADED and judgements.has_grades
    assert judgements.num_judged == len(PAIRS)


def test_judgements_compressed_and_in_parquet(tmp_path):
    with gzip.open(tmp_path / "qrels.tsv.gz", "wt") as file:
        file.write(FORMS["beir.tsv"])
    columns = dict(zip(("query-id", "corpus-id", "score"), map(list, zip(*PAIRS, strict=True)), strict=True))
    pq.write_table(pa.table(columns), tmp_path / "qrels.parquet")
    for name in ("qrels.tsv.gz", "qrels.parquet"):
        assert read_judgements(str(tmp_path / name)).grades == GRADED


def test_judgements_without_a_grade_are_relevant(tmp_path):
    (tmp_path / "q.tsv").write_text("query-id\tcorpus-id\nq0\td1\nq0\td2\n")
    judgements = read_judgements(str(tmp_path / "q.tsv"))
    assert judgements.grades == {"q0": {"d1": 1, "d2": 1}} and not judgements.has_grades


def test_numbers_may_be_ids(tmp_path):
    (tmp_path / "q.tsv").write_text("1\t0\t7\t1\n2\t0\t8\t2\n")
    assert read_judgements(str(tmp_path / "q.tsv")).grades == {"1": {"7": 1}, "2": {"8": 2}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("q0 Q0 d1 1 0.7 run\nq0 Q0 d2 2 0.6 run\n", "q.tsv:1: is a ranking .a TREC run., not judgements"),
        ("q0\td1\thigh\n", "q.tsv:1: expected query, document and grade"),
        ("query-id\tcorpus-id\tscore\nq0\td1\thigh\n", "q.tsv:2: the grade must be a number, got 'high'"),
        ("query-id\tcorpus-id\tscore\nq0\td1\tnan\n", "q.tsv:2: the grade must be a number, got 'nan'"),
        ("query-id\tcorpus-id\tscore\nq0\td1\n", "q.tsv:2: has 2 columns, and the first line has 3"),
        ("query-id\tcorpus-id\tnote\nq0\td1\tx\n", "q.tsv:1: no column for the grade among"),
        ("q0\td1\t1\nq0\td1\t2\n", "q.tsv:2: query 'q0' and document 'd1' are judged twice: 1 and 2"),
        ("query-id\tcorpus-id\tscore\n\td1\t1\n", "q.tsv:2: the id of the query or of the document is empty"),
        ("query-id\tcorpus-id\tscore\n", "holds no judgements"),
        ("", "holds no judgements"),
        ("one\n", "q.tsv:1: expected query, document and grade"),
    ],
)
def test_judgements_that_cannot_be_read(tmp_path, content, message):
    (tmp_path / "q.tsv").write_text(content)
    with pytest.raises(DataError, match=message):
        read_judgements(str(tmp_path / "q.tsv"))


def test_missing_judgements_are_named(tmp_path):
    with pytest.raises(DataError, match=r"none.tsv: no such file"):
        read_judgements(str(tmp_path / "none.tsv"))


# --- figures --------------------------------------------------------------------------------------------


def test_graded_ndcg_is_that_of_scikit_learn():
    random = np.random.default_rng(0)
    grades = random.integers(0, 4, (20, 30)).astype(float)
    scores = random.normal(size=(20, 30))
    order = np.argsort(-scores, axis=1)
    found = np.take_along_axis(grades, order, axis=1)
    relevant = [row[row > 0] for row in grades]
    result = scores_of_rankings(found, relevant)
    expected = [ndcg_score(g[None], s[None], k=10) for g, s in zip(grades, scores, strict=True)]
    np.testing.assert_allclose(result.per_query["ndcg@10"], expected, atol=1e-12)


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean", "manhattan"])
def test_documents_in_parts_are_ranked_as_all_at_once(similarity):
    random = np.random.default_rng(0)
    queries, documents = (
        random.normal(size=(9, 6)).astype(np.float32),
        random.normal(size=(70, 6)).astype(np.float32),
    )
    documents[40] = documents[3]
    top = TopDocuments(queries, 8, similarity)
    for first in range(0, 70, 16):
        top.add(documents[first : first + 16])
    expected = nearest_neighbors(queries, documents, 8, np.full(9, -1), similarity)
    assert top.documents.tolist() == expected.tolist()


class Place:
    """A model with prompts, and the files of a search."""

    def __init__(self, tiny, folder, **settings):
        self.folder, self.model = folder, folder / "model"
        self.theirs = save_sentence_folder(tiny, self.model, **settings)
        self.write("corpus.jsonl", CORPUS)
        self.write("queries.jsonl", QUERIES)
        (folder / "qrels.tsv").write_text(FORMS["beir.tsv"])

    def write(self, name, rows):
        write_rows(self.folder / name, rows)

    def words(self, *more):
        files = ["queries.jsonl", "--corpus", "corpus.jsonl", "--qrels", "qrels.tsv"]
        places = [word if word.startswith("-") else self.folder / word for word in files]
        return ["evaluate", self.model, *places, "--precision", "fp32", "--json", *more]

    def run(self, *more):
        result = CliRunner().invoke(app, [str(word) for word in self.words(*more)])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        values = json.loads(result.stdout)["values"] if result.exit_code == 0 else None
        return result.exit_code, values, result.stderr


@pytest.fixture
def search_of(tiny, tmp_path):
    pytest.importorskip("sentence_transformers")
    return lambda **settings: Place(tiny, tmp_path, **settings)


def their_figures(theirs, truncate_dim=None):
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    relevant = {q: {d for d, g in grades.items() if g > 0} for q, grades in GRADED.items()}
    evaluator = InformationRetrievalEvaluator(
        {row["_id"]: row["text"] for row in QUERIES},
        {row["_id"]: row["text"] for row in CORPUS},
        relevant,
        mrr_at_k=[10],
        ndcg_at_k=[10],
        accuracy_at_k=[1],
        precision_recall_at_k=[1, 5, 10, 100],
        write_csv=False,
        truncate_dim=truncate_dim,
    )
    name = theirs.similarity_fn_name
    figures = {key.removeprefix(f"{name}_"): value for key, value in evaluator(theirs).items()}
    names = ("mrr@10", "recall@1", "recall@5", "recall@10", "recall@100", "accuracy@1", "ndcg@10")
    return {key: figures[key] for key in names}


@pytest.mark.parametrize(
    ("settings", "dim"),
    [
        ({}, None),
        ({}, 6),
        ({"prompts": {"query": "the cat ", "document": "big big "}}, None),
        ({"prompts": {"query": "the cat ", "x": "good "}, "default_prompt_name": "x"}, None),
        ({"similarity_fn_name": "dot"}, None),
        ({"similarity_fn_name": "manhattan"}, 10),
        ({"truncate_dim": 7}, None),
    ],
)
def test_figures_are_those_of_sentence_transformers(search_of, settings, dim):
    place = search_of(**settings)
    code, found, said = place.run(*([] if dim is None else ["--truncate-dim", dim]))
    assert code == 0, said
    expected = their_figures(place.theirs, dim)
    binary = {key: value for key, value in expected.items() if key != "ndcg@10"}  # theirs knows no grades
    assert {key: found[key] for key in binary} == pytest.approx(binary, abs=1e-9)
    (place.folder / "qrels.tsv").write_text("".join(f"{q}\t{d}\t{min(g, 1)}\n" for q, d, g in PAIRS))
    assert place.run(*([] if dim is None else ["--truncate-dim", dim]))[1] == pytest.approx(
        expected, abs=1e-9
    )
    if "prompts" in settings:
        assert "queries get the prompt 'the cat ', documents" in said


def test_scores_are_those_of_a_search(search_of):
    """The same ranking as `bertune search`, with grades."""
    place = search_of(prompts={"query": "the cat ", "document": "big big "})
    texts = [row["text"] for row in QUERIES[:4]]
    words = ["search", place.model, place.folder / "corpus.jsonl", *texts, "-k", 10, "--json"]
    result = CliRunner().invoke(app, [str(word) for word in (*words, "--precision", "fp32")])
    gains = []
    for query, line in zip(GRADED, map(json.loads, result.stdout.splitlines()), strict=True):
        gains.append([GRADED[query].get(hit["_id"], 0) for hit in line["hits"]])
    relevant = [np.array([g for g in grades.values() if g > 0], float) for grades in GRADED.values()]
    expected = scores_of_rankings(np.array(gains, float), relevant).values["ndcg@10"]
    assert place.run()[1]["ndcg@10"] == pytest.approx(expected, abs=1e-9)


def test_pairs_are_scored_with_the_prompts_of_a_search(search_of):
    """`evaluate` of pairs of a query and a text is the search that `bertune search` makes."""
    place = search_of(prompts={"query": "the cat ", "document": "big big "})
    pairs = [{"text": QUERIES[n]["text"], "text_b": CORPUS[3 * n]["text"]} for n in range(6)]
    file = write_rows(place.folder / "pairs.jsonl", pairs)
    qrels = "".join(f"q{n}\td{3 * n}\t1\n" for n in range(6))
    (place.folder / "qrels.tsv").write_text(qrels)
    place.write("corpus.jsonl", CORPUS[::3])
    expected = place.run()[1]
    lines: list[str] = []
    console = Console()
    console.info = lines.append
    found = bertune.evaluate(place.model, str(file), precision="fp32", console=console).scores.values
    assert found == pytest.approx({name: expected[name] for name in found}, abs=1e-9)
    assert any("queries get the prompt 'the cat ', texts to find 'big big '" in line for line in lines)
    scored = [{**row, "label": n} for n, row in enumerate(pairs)]  # no search: no such prompts
    figures = bertune.evaluate(
        place.model, str(write_rows(place.folder / "scored.jsonl", scored)), precision="fp32"
    ).scores.values
    model = bertune.load(place.model, precision="fp32")
    cosines = [
        float(model.similarity_pairwise(model.encode(r["text"]), model.encode(r["text_b"]))) for r in pairs
    ]
    assert figures["pearson"] == pytest.approx(pearsonr(range(6), cosines).statistic, abs=1e-4)


def test_missing_ids_are_counted_and_said(search_of):
    place = search_of()
    place.write("corpus.jsonl", CORPUS[:17])  # without d17
    code, found, said = place.run()
    assert code == 0
    assert "1 of 6 relevant documents are not in" in said and "'d17'" in said
    assert "2 queries of" in said and "are not judged, and are left out: 'q4', 'q5'" in said
    assert found["recall@100"] == pytest.approx((2 / 3 + 3) / 4)  # d17 counts as not found
    (place.folder / "qrels.tsv").write_text(FORMS["plain.tsv"] + "q3\td1\t1\nq77\td1\t1\nq4\td9\t0\n")
    _, _, said = place.run()
    assert "1 judged queries are not in" in said and "'q77'" in said
    assert "1 queries have no relevant document, and are left out: 'q4'" in said


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("qrels.tsv", "x0\td1\t1\n", "judges no query of"),
        ("qrels.tsv", "q0\tx1\t1\n", "holds no relevant document of"),
        ("corpus.jsonl", '{"text": "a dog"}\n', "corpus.jsonl:1: has no id"),
        ("queries.jsonl", '{"text": "a dog"}\n', "queries.jsonl:1: has no id"),
        ("corpus.jsonl", '{"id": 1, "text": "a"}\n\n{"id": 1, "text": "b"}\n', "corpus.jsonl:3: has the id '1', which line 1 has"),
        ("queries.jsonl", '{"_id": "q0", "text": "a"}\n{"_id": "q0", "text": "b"}\n', "queries.jsonl:2: has the id 'q0'"),
    ],
)  # fmt: skip
def test_ids_that_do_not_fit(search_of, name, content, message):
    place = search_of()
    (place.folder / name).write_text(content)
    code, _, said = place.run()
    assert code == 2 and message in said.splitlines()[-1]


def test_files_without_header(search_of):
    place = search_of()
    expected = place.run()[1]
    for name, rows in (("corpus.jsonl", CORPUS), ("queries.jsonl", QUERIES)):
        (place.folder / name).write_text("".join(f"{row['_id']}\t{row['text']}\n" for row in rows))
    settings = ["data.format=tsv", "data.columns=[id,text]"]
    code, found, said = place.run(*settings, *(word for s in settings for word in ("--data", s)))
    assert code == 0, said
    assert found == expected


def test_a_query_that_is_a_document_does_not_find_itself(search_of):
    """As in ArguAna. Equal ids of other texts are no reason."""
    place = search_of()
    place.write("queries.jsonl", [{"_id": "d0", "text": CORPUS[0]["text"]}, {"_id": "d1", "text": "a cat"}])
    (place.folder / "qrels.tsv").write_text("d0\td3\t1\nd1\td1\t1\n")
    place.write("corpus.jsonl", [CORPUS[0], CORPUS[3], {"_id": "d1", "text": "a cat which is good"}])
    assert place.run()[1]["recall@5"] == 1
    place.write("corpus.jsonl", [CORPUS[0], CORPUS[3]])
    (place.folder / "qrels.tsv").write_text("d0\td3\t1\n")
    assert place.run()[1]["mrr@10"] == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--corpus", "c.jsonl"], "need --qrels FILE"),
        (["--qrels", "q.tsv"], "need --corpus FILE"),
        (["--data", "data.format=csv"], "--data: without effect here, since there is no --corpus"),
        (["--corpus", "c", "--qrels", "q", "--task", "t.py"], "--task: without effect here"),
        (["--truncate-dim", "33"], "truncate_dim: 33 is not from 1 to 32"),
    ],
)
def test_options_of_a_search_that_do_not_fit(search_of, words, message):
    place = search_of()
    pairs = write_rows(
        place.folder / "pairs.jsonl", [{"text": "a", "text_b": "b"}, {"text": "c", "text_b": "d"}]
    )
    result = CliRunner().invoke(app, ["evaluate", str(place.model), str(pairs), *words])
    assert result.exit_code == 2 and message in result.stderr


def test_pairs_at_a_width_are_scored_by_the_first_features(search_of):
    place = search_of()
    pairs = [
        {"text": q["text"], "text_b": d["text"], "label": n / 4}
        for n, (q, d) in enumerate(zip(QUERIES, CORPUS, strict=False))
    ]
    file = write_rows(place.folder / "pairs.jsonl", pairs)
    found = bertune.evaluate(place.model, str(file), truncate_dim=5, precision="fp32").scores.values
    model = bertune.load(place.model, precision="fp32")
    sides = [model.encode([row[part] for row in pairs], truncate_dim=5) for part in ("text", "text_b")]
    cosines = model.similarity_pairwise(*sides).numpy()
    assert found["pearson"] == pytest.approx(
        pearsonr([row["label"] for row in pairs], cosines).statistic, abs=1e-4
    )


def test_one_file_of_queries(search_of):
    place = search_of()
    files = SearchFiles(str(place.folder / "corpus.jsonl"), str(place.folder / "qrels.tsv"))
    with pytest.raises(ConfigError, match="a search takes one file of queries, got 2"):
        bertune.evaluate(place.model, ["a.jsonl", "b.jsonl"], search=files)
