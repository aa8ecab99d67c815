"""Files of vectors: whole or not there, the same bytes however often they were stopped, nothing encoded twice, every column kept."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bertune.errors import ConfigError, DataError
from bertune.inference.vectors import VECTOR_DTYPES, dequantize_vectors, quantize_vectors
from bertune.retrieval import writers as vectors
from bertune.retrieval.writers import VectorFile, write_vectors

WIDTH, CHUNK = 12, 8
NAMES = ["out.npy", "out.parquet"]
directions = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 6), st.integers(1, 40)), elements=st.floats(-1e3, 1e3, width=32)
)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(vectors, "CHUNK_ROWS", CHUNK)


def vector_of(text):
    return np.random.default_rng(list(text.encode())).normal(size=WIDTH).astype(np.float32)


def expected(rows):
    return np.stack([vector_of(text) for _, text in rows])


class Encoder:
    """Encodes, and keeps what it was asked; `stops_at` is the call that fails."""

    def __init__(self, stops_at=None):
        self.calls = []
        self.stops_at = stops_at

    def __call__(self, texts):
        if len(self.calls) == self.stops_at:
            raise Stopped
        self.calls.append(texts)
        return np.stack([vector_of(text) for text in texts])


class Stopped(Exception):
    pass


def corpus(count=30):
    return [
        ({"id": n, "text": f"text {n % 11}", "tags": ["a"] * (n % 3)}, f"text {n % 11}") for n in range(count)
    ]


def job_of(path, count=30, form="float32", **identity):
    return VectorFile(Path(path), count, WIDTH, form, {"model": "m", **identity})


def stored(path, form):
    if path.suffix == ".npy":
        return np.load(path, mmap_mode="r")
    return np.stack(pq.read_table(path).column("embedding").to_numpy(zero_copy_only=False))


def left_over(folder):
    return sorted(p.name for p in folder.iterdir())


# --- the forms ---------------------------------------------------------------------------------------------------------------------


def cosine(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))


@given(directions)
def test_int8_keeps_the_direction(x):
    x = x[np.abs(x).max(axis=1) > 0]
    back = dequantize_vectors(quantize_vectors(x, "int8"), "int8", x.shape[1])
    if len(x):
        assert (np.abs(back).max(axis=1) == 127).all()
        assert cosine(x, back).min() > 0.99


def test_int8_hardly_moves_cosines_between_vectors():
    x = np.random.default_rng(0).normal(size=(200, 384)).astype(np.float32)
    x[::2] += 3 * x[1::2]  # some near, some far
    back = dequantize_vectors(quantize_vectors(x, "int8"), "int8", 384)
    for shift in (1, 2, 7):
        assert np.abs(cosine(x, np.roll(x, shift, 0)) - cosine(back, np.roll(back, shift, 0))).max() < 0.01


@pytest.mark.parametrize(("form", "dtype"), [("binary", np.int8), ("ubinary", np.uint8)])
@given(directions)
def test_bits_keep_the_signs(form, dtype, x):
    packed = quantize_vectors(x, form)
    assert packed.dtype == dtype and packed.shape == (len(x), -(-x.shape[1] // 8))
    assert (dequantize_vectors(packed, form, x.shape[1]) == np.where(x > 0, 1, -1)).all()


def test_bits_have_the_values_of_sentence_transformers():
    """And "binary" files of earlier versions, which had the values of `ubinary`, can still be read."""
    quantization = pytest.importorskip("sentence_transformers.quantization")
    x = np.random.default_rng(0).normal(size=(9, 64)).astype(np.float32)
    for form in ("binary", "ubinary"):
        theirs = quantization.quantize_embeddings(x, form)
        ours = quantize_vectors(x, form)
        assert ours.dtype == theirs.dtype and (ours == theirs).all()
    earlier = np.packbits(x > 0, axis=1)
    assert (dequantize_vectors(earlier, "binary", 64) == np.where(x > 0, 1, -1)).all()


def test_binary_tells_near_from_far():
    draw = np.random.default_rng(0)
    x = draw.normal(size=(50, 384)).astype(np.float32)
    near, far = (
        x + 0.3 * draw.normal(size=x.shape).astype(np.float32),
        draw.normal(size=x.shape).astype(np.float32),
    )
    signs = [dequantize_vectors(quantize_vectors(v, "binary"), "binary", 384) for v in (x, near, far)]
    assert cosine(signs[0], signs[1]).min() > cosine(signs[0], signs[2]).max()


@given(directions)
def test_casts_are_casts(x):
    assert (dequantize_vectors(quantize_vectors(x, "float32"), "float32", x.shape[1]) == x).all()
    assert (quantize_vectors(x, "float16") == x.astype(np.float16)).all()


def test_zeros_stay_zeros_and_the_smallest_numbers_keep_their_direction():
    x = np.array([[0, 0], [1e-45, -1e-45], [3e38, -3e38]], dtype=np.float32)
    assert quantize_vectors(x, "int8").tolist() == [[0, 0], [127, -127], [127, -127]]


def test_an_unknown_form_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="'int4' is none of float32, float16, int8, binary, ubinary"):
        quantize_vectors(np.zeros((1, 2), dtype=np.float32), "int4")
    with pytest.raises(ConfigError, match="int4"):
        write_vectors(job_of(tmp_path / "out.npy", form="int4"), corpus(), Encoder())


# --- what is written ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", VECTOR_DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_every_row_in_its_place_in_every_form(tmp_path, name, form):
    rows, encoder, progress = corpus(), Encoder(), []
    assert write_vectors(job_of(tmp_path / name, form=form), iter(rows), encoder, progress.append) == 0
    got = stored(tmp_path / name, form)
    wanted = quantize_vectors(expected(rows), form)
    assert got.dtype == wanted.dtype and (got == wanted).all()
    assert left_over(tmp_path) == [name]
    assert progress == [0, 8, 16, 24, 30]
    assert max(map(len, encoder.calls)) <= CHUNK


@pytest.mark.parametrize("count", [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK])
@pytest.mark.parametrize("name", NAMES)
def test_any_number_of_rows(tmp_path, name, count):
    write_vectors(job_of(tmp_path / name, count), corpus(count), Encoder())
    assert (stored(tmp_path / name, "float32") == expected(corpus(count))).all()


def test_a_npy_file_has_the_bytes_that_numpy_writes(tmp_path):
    write_vectors(job_of(tmp_path / "out.npy"), corpus(), Encoder())
    np.save(tmp_path / "numpy.npy", expected(corpus()))
    assert (tmp_path / "out.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()


def test_an_older_file_is_replaced_only_when_the_new_one_is_whole(tmp_path):
    path = tmp_path / "out.npy"
    path.write_bytes(b"older")
    with pytest.raises(Stopped):
        write_vectors(job_of(path), corpus(), Encoder(stops_at=2))
    assert path.read_bytes() == b"older"
    write_vectors(job_of(path), corpus(), Encoder())
    assert np.load(path).shape == (30, WIDTH)


# --- parquet -----------------------------------------------------------------------------------------------------------------------


def parquet_of(folder, raws):
    write_vectors(
        job_of(folder / "out.parquet", len(raws)), [(raw, str(n)) for n, raw in enumerate(raws)], Encoder()
    )
    return pq.read_table(folder / "out.parquet")


def test_parquet_keeps_columns_and_order(tmp_path):
    raws = [
        {"b": n, "text": f"词 {n}", "a": n / 2, "tags": ["x", "y"][: n % 3], "flag": n % 2 == 0}
        for n in range(20)
    ]
    table = parquet_of(tmp_path, raws)
    assert table.column_names == ["b", "text", "a", "tags", "flag", "embedding"]
    assert table.drop_columns(["embedding"]).to_pylist() == raws
    assert (
        str(table.schema.field("embedding").type).startswith("fixed_size_list<")
        and table.schema.field("embedding").type.list_size == WIDTH
    )


def test_a_taken_name_is_left_alone(tmp_path):
    table = parquet_of(tmp_path, [{"embedding": "mine"}] * 10)
    assert table.column_names == ["embedding", "embedding_"]
    assert table.column("embedding").to_pylist() == ["mine"] * 10


@pytest.mark.parametrize(
    "values",
    [
        [1, "a", None, 2.5, True],
        [True, 1, 0],
        [{"x": 1}, {"x": 1, "y": "z"}],
        [[{"x": 1}], []],
        [2**70, 1],
        ["\ud83d", "whole"],
        ["text", ["list"]],
    ],
    ids=str,
)
def test_values_that_parquet_cannot_keep_become_json_text(tmp_path, values):
    raws = [{"v": value} for value in values] + [{"v": values[0]}] * 2 * CHUNK
    column = parquet_of(tmp_path, raws).column("v").to_pylist()
    assert [None if text is None else json.loads(text) for text in column] == [raw["v"] for raw in raws]


def test_decimals_and_columns_of_json_stay_what_they_are(tmp_path):
    raws = [{"price": Decimal("1.50"), "v": {"n": n}} for n in range(CHUNK)] + [
        {"price": Decimal("1000.5"), "v": "plain"}
    ]
    table = parquet_of(tmp_path, raws)
    assert json.loads(table.column("price").to_pylist()[-1]) == "1000.5"
    assert json.loads(table.column("v").to_pylist()[-1]) == "plain"


@pytest.mark.parametrize("late", ["a", 3, 0.5, ["x"], [[1]], {"a": 1}, True], ids=str)
@pytest.mark.parametrize("early", [{"v": None}, {}], ids=["null", "missing"])
def test_a_column_without_values_is_decided_by_the_first(tmp_path, early, late):
    raws = [dict(early)] * 2 * CHUNK + [{"v": late}] * CHUNK + [{"v": None}] * CHUNK
    column = parquet_of(tmp_path, [{"id": 1, **raw} for raw in raws]).column("v").to_pylist()
    got = [json.loads(v) if isinstance(late, dict) and v else v for v in column]
    assert got == [raw.get("v") for raw in raws]


@pytest.mark.parametrize("late", [["x"], [[1]], None, []], ids=str)
def test_empty_lists_take_the_type_of_later_ones(tmp_path, late):
    raws = [{"v": []}] * CHUNK + [{"v": late}] * CHUNK
    assert parquet_of(tmp_path, raws).column("v").to_pylist() == [raw["v"] for raw in raws]


def test_empty_lists_before_something_else_become_json_text(tmp_path):
    column = parquet_of(tmp_path, [{"v": []}] * CHUNK + [{"v": "x"}] * CHUNK).column("v").to_pylist()
    assert column == ["[]"] * CHUNK + ['"x"'] * CHUNK


@pytest.mark.parametrize(
    ("early", "late"),
    [
        (1, "a"),
        ("a", 1),
        (1, 1.5),
        (0.5, 2**60 + 1),
        (True, 1),
        (1, True),
        (["a"], "a"),
        (["a"], [1]),
        (1, 2**70),
    ],
    ids=str,
)
def test_a_later_value_of_another_kind_is_named(tmp_path, early, late):
    with pytest.raises(
        DataError,
        match=r"row 19: the column 'v' holds .* in the rows before it .*; give the column values of one kind",
    ):
        parquet_of(tmp_path, [{"v": early}] * 18 + [{"v": late}, {"v": early}])


@pytest.mark.parametrize(("early", "late"), [(1, 2.0), (0.5, 2), (0.5, None)], ids=str)
def test_numbers_that_fit_are_taken(tmp_path, early, late):
    assert parquet_of(tmp_path, [{"v": early}] * CHUNK + [{"v": late}]).column("v").to_pylist() == [
        early
    ] * CHUNK + [late]


def test_a_later_column_with_the_name_of_the_vectors_is_named(tmp_path):
    with pytest.raises(DataError, match="row 10: has a column 'embedding', which the rows before it lack"):
        parquet_of(tmp_path, [{"a": 1}] * 9 + [{"embedding": 1}])


def test_rows_without_columns(tmp_path):
    table = parquet_of(tmp_path, [{}] * 10)
    assert table.column_names == ["embedding"] and len(table) == 10


# --- stopped and gone on with ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["float32", "binary"])
@pytest.mark.parametrize("name", NAMES)
def test_stopped_before_each_chunk_the_bytes_are_the_same_and_nothing_is_encoded_twice(tmp_path, name, form):
    (tmp_path / "whole").mkdir()
    unbroken = Encoder()
    write_vectors(job_of(tmp_path / "whole" / name, form=form), corpus(), unbroken)
    for stops_at in range(4):
        path = tmp_path / f"stopped{stops_at}" / name
        path.parent.mkdir()
        first, second, progress = Encoder(stops_at), Encoder(), []
        with pytest.raises(Stopped):
            write_vectors(job_of(path, form=form), iter(corpus()), first)
        assert not path.exists()
        assert (
            write_vectors(job_of(path, form=form), iter(corpus()), second, progress.append)
            == stops_at * CHUNK
        )
        assert progress[0] == stops_at * CHUNK
        assert first.calls + second.calls == unbroken.calls
        assert path.read_bytes() == (tmp_path / "whole" / name).read_bytes()
        assert left_over(path.parent) == [name]


def test_stopped_at_every_chunk_one_after_the_other(tmp_path):
    calls = []
    for _ in range(3):
        encoder = Encoder(stops_at=1)
        with pytest.raises(Stopped):
            write_vectors(job_of(tmp_path / "out.npy"), corpus(), encoder)
        calls += encoder.calls
    assert write_vectors(job_of(tmp_path / "out.npy"), corpus(), Encoder(stops_at=1)) == 24
    assert len(calls) == 3
    assert (np.load(tmp_path / "out.npy") == expected(corpus())).all()


class Killed(BaseException):
    """Ends the process as far as our code can tell: nothing that it would do in a kill is done here."""


def kill_at(monkeypatch, moment):
    """Let the process die before (even) or after (odd) the n-th time that it changes what lasts."""
    clock = itertools.count()

    def deadly(real):
        def call(*given, **named):
            if next(clock) == moment:
                raise Killed
            result = real(*given, **named)
            if next(clock) == moment:
                raise Killed
            return result

        return call

    monkeypatch.setattr(os, "fsync", deadly(os.fsync))
    for name in ("replace", "unlink", "rmdir", "mkdir"):
        monkeypatch.setattr(Path, name, deadly(getattr(Path, name)))
    return clock


def dies(job, moment):
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, moment)
        try:
            write_vectors(job, corpus(), Encoder())
        except Killed:
            return True
    return False


@pytest.mark.parametrize("name", NAMES)
def test_killed_at_any_moment(tmp_path, name):
    """Every fsync, rename and removal is a moment; a kill at each of them, and another during the call that goes on."""
    write_vectors(job_of(tmp_path / name), corpus(), Encoder())
    whole = (tmp_path / name).read_bytes()
    for moment in itertools.count():
        path = tmp_path / f"{moment}" / name
        path.parent.mkdir()
        if not dies(job_of(path), moment):
            break
        assert not path.exists() or path.read_bytes() == whole
        dies(job_of(path), moment // 2)
        assert not path.exists() or path.read_bytes() == whole
        write_vectors(job_of(path), corpus(), Encoder())
        assert path.read_bytes() == whole
        assert left_over(path.parent) == [name]
    assert moment > 30


def test_after_a_kill_at_the_very_end_nothing_is_encoded_again(tmp_path):
    path = tmp_path / "out.npy"

    def killed(*given, **named):
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(Killed):
            write_vectors(job_of(path), corpus(), Encoder())
    assert path.exists() and (tmp_path / "out.npy.part.json").exists()
    encoder = Encoder()
    assert write_vectors(job_of(path), corpus(), encoder) == 30
    assert encoder.calls == [] and left_over(tmp_path) == ["out.npy"]


@pytest.mark.skipif(os.name == "nt", reason="there is no kill -9")
@pytest.mark.parametrize("name", NAMES)
def test_kill_9_of_a_real_process(tmp_path, name):
    program = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        sys.path.insert(0, sys.argv[2])
        import test_writers as t
        t.vectors.CHUNK_ROWS = t.CHUNK
        inner = t.Encoder()
        def encode(texts):
            if len(inner.calls) == 2:
                print("in the third chunk", flush=True)
                time.sleep(600)
            return inner(texts)
        t.write_vectors(t.job_of(sys.argv[1]), iter(t.corpus()), encode)
        """
    )
    command = [sys.executable, "-c", program, str(tmp_path / name), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "in the third chunk\n"
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / name).exists()
    encoder = Encoder()
    assert write_vectors(job_of(tmp_path / name), iter(corpus()), encoder) == 2 * CHUNK
    assert len(encoder.calls) == 2
    (tmp_path / "whole").mkdir()
    write_vectors(job_of(tmp_path / "whole" / name), corpus(), Encoder())
    assert (tmp_path / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_what_is_begun_under_another_identity_is_not_gone_on_with(tmp_path, name):
    path = tmp_path / name
    with pytest.raises(Stopped):
        write_vectors(job_of(path, seed=1), corpus(), Encoder(stops_at=2))
    for other in (job_of(path, seed=2), job_of(path, form="int8", seed=1), job_of(path, count=29, seed=1)):
        with pytest.raises(ConfigError) as refused:
            write_vectors(other, corpus(other.num_rows), Encoder())
        assert f"remove {path}.part and {path}.part.json" in str(refused.value) and "\n" not in str(
            refused.value
        )
    assert "count: 30 there, 29 here" in str(refused.value)
    assert write_vectors(job_of(path, seed=1), corpus(), Encoder()) == 2 * CHUNK


def test_nothing_is_lost_where_nothing_was_done(tmp_path):
    with pytest.raises(Stopped):
        write_vectors(job_of(tmp_path / "out.npy", seed=1), corpus(), Encoder(stops_at=0))
    assert write_vectors(job_of(tmp_path / "out.npy", seed=2), corpus(), Encoder()) == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_part_that_was_removed_is_made_anew(tmp_path, name):
    path = tmp_path / name
    with pytest.raises(Stopped):
        write_vectors(job_of(path), corpus(), Encoder(stops_at=2))
    gone = (
        path.with_name(name + ".part")
        if name.endswith("npy")
        else path.with_name(name + ".part") / "000000.parquet"
    )
    gone.unlink()
    assert write_vectors(job_of(path), corpus(), Encoder()) == 0
    assert (stored(path, "float32") == expected(corpus())).all()


def test_damage_is_said(tmp_path):
    path = tmp_path / "out.parquet"
    with pytest.raises(Stopped):
        write_vectors(job_of(path), corpus(), Encoder(stops_at=2))
    (tmp_path / "out.parquet.part" / "000000.parquet").write_bytes(b"PAR1 and nothing")
    with pytest.raises(
        ConfigError, match=r"out.parquet.part is damaged: .*; remove it and .*out.parquet.part.json"
    ):
        write_vectors(job_of(path), corpus(), Encoder())
    (tmp_path / "out.parquet.part.json").write_text("[")
    with pytest.raises(ConfigError, match=r"out.parquet.part.json is damaged; remove it and"):
        write_vectors(job_of(path), corpus(), Encoder())


def test_files_of_others_are_not_removed(tmp_path):
    (tmp_path / "out.parquet.part").mkdir()
    (tmp_path / "out.parquet.part" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"mine.txt is in the way"):
        write_vectors(job_of(tmp_path / "out.parquet"), corpus(), Encoder())
    assert (tmp_path / "out.parquet.part" / "mine.txt").read_text() == "mine"


# --- what cannot be ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["out.csv", "out", "out.npz"])
def test_another_name_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match=r"names that end in \.npy or \.parquet"):
        write_vectors(job_of(tmp_path / name), corpus(), Encoder())


def test_a_folder_that_is_not_there_and_one_in_the_way(tmp_path):
    with pytest.raises(ConfigError, match=r"-o .*out.npy: cannot be written: No such file"):
        write_vectors(job_of(tmp_path / "none" / "out.npy"), corpus(), Encoder())
    (tmp_path / "out.npy").mkdir()
    with pytest.raises(ConfigError, match="is a folder"):
        write_vectors(job_of(tmp_path / "out.npy"), corpus(), Encoder())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("there", "message"), [(29, "only 29"), (16, "only 16"), (31, "more"), (0, "only 0")]
)
def test_more_or_fewer_rows_than_counted(tmp_path, name, there, message):
    with pytest.raises(DataError, match=f"30 rows were counted, and then there were {message};"):
        write_vectors(job_of(tmp_path / name), corpus(there), Encoder())
    assert not (tmp_path / name).exists()


def test_fewer_rows_than_were_done(tmp_path):
    with pytest.raises(Stopped):
        write_vectors(job_of(tmp_path / "out.npy"), corpus(), Encoder(stops_at=2))
    with pytest.raises(DataError, match="fewer than the 16 that are done already"):
        write_vectors(job_of(tmp_path / "out.npy"), corpus(9), Encoder())
    with pytest.raises(DataError, match="no rows to write"):
        write_vectors(job_of(tmp_path / "out.npy", count=0), [], Encoder())


@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk_keeps_what_was_done(tmp_path, name):
    with pytest.MonkeyPatch.context() as patch:
        left = itertools.count(-4)

        def fsync(_):
            if next(left) >= 0:
                raise OSError(28, "No space left on device")

        patch.setattr(os, "fsync", fsync)
        with pytest.raises(ConfigError, match=f"-o .*{name}: cannot be written: No space left on device"):
            write_vectors(job_of(tmp_path / name), corpus(), Encoder())
    assert write_vectors(job_of(tmp_path / name), corpus(), Encoder()) >= CHUNK


def test_errors_of_the_rows_are_not_called_errors_of_the_file(tmp_path):
    def rows():
        yield {}, "a"
        raise OSError("the input")

    with pytest.raises(OSError, match="the input"):
        write_vectors(job_of(tmp_path / "out.npy"), rows(), Encoder())


@pytest.mark.parametrize(
    ("form", "bad", "message"),
    [("int8", np.nan, "not finite"), ("float32", np.inf, "not finite"), ("float16", 7e4, "65504")],
)
def test_vectors_that_are_none_are_named(tmp_path, form, bad, message):
    def encode(texts):
        found = Encoder()(texts)
        for place, text in enumerate(texts):
            if text == "text 10":
                found[place, 3] = bad
        return found

    with pytest.raises(DataError, match=f"row 11: .*{message}"):
        write_vectors(job_of(tmp_path / "out.npy", form=form), corpus(), encode)


def test_an_encoder_of_another_width_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"8 texts became \(8, 12\), expected \(8, 13\)"):
        write_vectors(replace(job_of(tmp_path / "out.npy"), dim=13), corpus(), Encoder())
