"""Tokenising with all cores: processes that encode parts of what they are given.

A worker is a fresh Python that imports tokenizers and numpy, not torch and not the program it was started from, and ends when its input
does. So nothing has to be guarded by `if __name__ == "__main__"`, and a process that is killed leaves no worker behind.
"""

from __future__ import annotations

import itertools
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, cast

import numpy as np

from bertune.text.tokenizer import Tokenizer
from bertune.text.word_cache import PackedEncodings
from bertune.types import Encoding

MAX_WORKERS = 8
"""Processes beyond which the one that hands out the work is too slow for them."""
MIN_TEXTS = 256
"""Texts too few to be shared out."""
_BEGIN = """
import pickle, sys
sys.path[:] = pickle.load(sys.stdin.buffer)
from bertune.text.workers import serve
serve()
"""


def num_workers(setting: str | int) -> int:
    """Return how many processes tokenise, this one among them."""
    if isinstance(setting, int):
        return setting
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, MAX_WORKERS))


@contextmanager
def parallel_tokenizer(
    tokenizer: Tokenizer, workers: str | int, log: Callable[[str], None]
) -> Iterator[Tokenizer | ParallelTokenizer]:
    """Give a tokenizer that encodes with several processes, or itself where there is to be one."""
    count = num_workers(workers)
    if count == 1:
        yield tokenizer
        return
    found = ParallelTokenizer(tokenizer, count, log)
    try:
        yield found
    finally:
        found.close()


class ParallelTokenizer:
    """A tokenizer that shares its work out; the results are the same and in the same order."""

    def __init__(self, tokenizer: Tokenizer, count: int, log: Callable[[str], None]) -> None:
        self._tokenizer, self._say = tokenizer, log
        self._workers = [_Worker(tokenizer) for _ in range(count - 1)]

    def __getattr__(self, name: str) -> Any:
        """Return whatever else a tokenizer knows."""
        return getattr(self._tokenizer, name)

    def encode(self, texts: Sequence[tuple[str, ...]]) -> list[Encoding]:
        """Do as `Tokenizer.encode`."""
        return self._shared_out("encode", texts)

    def encode_words(
        self, texts: Sequence[tuple[str, Sequence[tuple[int, int]]]], overlap: int
    ) -> list[tuple[Encoding, list[int]]]:
        """Do as `Tokenizer.encode_words`."""
        return self._shared_out("encode_words", texts, overlap)

    def _shared_out(self, method: str, texts: Sequence[Any], *more: Any) -> list[Any]:
        if len(texts) < MIN_TEXTS or not self._workers:
            return list(getattr(self._tokenizer, method)(texts, *more))
        shares = np.cumsum([0, 1] + [2] * len(self._workers))  # this process has the rest to do as well
        cuts = (shares * len(texts) // shares[-1]).tolist()
        parts = [texts[start:stop] for start, stop in itertools.pairwise(cuts)]
        asked = [
            worker.ask((method, part, *more)) for worker, part in zip(self._workers, parts[1:], strict=True)
        ]
        found = list(getattr(self._tokenizer, method)(parts[0], *more))
        lost = []
        for worker, was_asked, part in zip(self._workers, asked, parts[1:], strict=True):
            answer = worker.answer() if was_asked else None
            if answer is None:
                lost.append(worker)
                answer = getattr(self._tokenizer, method)(part, *more)
            found += answer.to_list() if isinstance(answer, PackedEncodings) else answer
        if lost:
            self._say(
                f"note: {len(lost)} of {len(self._workers)} processes that tokenise ended; their part is done by the others"
            )
            self._workers = [worker for worker in self._workers if worker not in lost]
            for worker in lost:
                worker.close()
        return found

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.close()


class _Worker:
    def __init__(self, tokenizer: Tokenizer) -> None:
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
        self._process = subprocess.Popen(  # noqa: S603  (this Python, with a program that stands here)
            [sys.executable, "-I", "-c", _BEGIN],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        self._to, self._from = cast(BinaryIO, self._process.stdin), cast(BinaryIO, self._process.stdout)
        self.ask(sys.path)
        self.ask(tokenizer)

    def ask(self, what: Any) -> bool:
        """Hand something over; tell whether the process is there to take it."""
        try:
            pickle.dump(what, self._to, pickle.HIGHEST_PROTOCOL)
            self._to.flush()
        except OSError:
            return False
        return True

    def answer(self) -> Any:
        """Return what it found, or None where it has ended."""
        try:
            return pickle.load(self._from)  # noqa: S301  (from our own process)
        except (OSError, EOFError, pickle.UnpicklingError):
            return None

    def close(self) -> None:
        for pipe in (self._to, self._from):
            with suppress(OSError):
                pipe.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def serve() -> None:
    """Encode what comes in, until nothing comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that was started by somebody
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nobody else writes where the results go
    with suppress(EOFError, BrokenPipeError):
        tokenizer = pickle.load(sys.stdin.buffer)  # noqa: S301  (from the process that started this one)
        while True:
            method, *arguments = pickle.load(sys.stdin.buffer)  # noqa: S301
            found = getattr(tokenizer, method)(*arguments)
            if method == "encode" and type(tokenizer) is Tokenizer:
                found = _together(found)
            pickle.dump(found, results, pickle.HIGHEST_PROTOCOL)
            results.flush()


def _together(pieces: Sequence[Encoding]) -> PackedEncodings:
    """Lay pieces out in a few arrays, which cross a pipe much faster than many."""
    offsets = np.zeros(len(pieces) + 1, np.int64)
    np.cumsum([len(piece.input_ids) for piece in pieces], out=offsets[1:])
    ids = np.concatenate([np.asarray(piece.input_ids, np.int32) for piece in pieces])
    types = np.concatenate([np.asarray(piece.token_type_ids, np.uint8) for piece in pieces])
    return PackedEncodings(
        ids,
        types if types.any() else None,
        offsets,
        np.array([piece.num_truncated for piece in pieces], np.int64),
    )
