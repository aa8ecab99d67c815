"""Tokenization with several processes.

A worker is a new Python process that imports tokenizers and numpy, but neither torch nor the program that
started it. It ends when its input ends. So no program needs `if __name__ == "__main__"`, and a process that
is killed leaves no worker behind.
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
"""More processes are faster than the main process can send texts."""
MIN_TEXTS = 256
"""Fewer texts are not divided among processes."""
_BEGIN = """
import pickle, sys
sys.path[:] = pickle.load(sys.stdin.buffer)
from bertune.text.workers import serve
serve()
"""


def num_workers(setting: str | int) -> int:
    """Return how many processes tokenize, including this one."""
    if isinstance(setting, int):
        return setting
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, MAX_WORKERS))


@contextmanager
def parallel_tokenizer(
    tokenizer: Tokenizer, workers: str | int, log: Callable[[str], None]
) -> Iterator[Tokenizer | ParallelTokenizer]:
    """Yield a tokenizer that encodes with several processes, or the tokenizer itself where one is enough."""
    count = num_workers(workers)
    if count == 1:
        yield tokenizer
        return
    parallel = ParallelTokenizer(tokenizer, count, log)
    try:
        yield parallel
    finally:
        parallel.close()


class ParallelTokenizer:
    """A tokenizer that divides its work among processes; the results are the same, in the same order.

    Args:
        tokenizer: is copied to the workers.
        count: number of processes, including this one.
        log: takes notes for the user.
    """

    def __init__(self, tokenizer: Tokenizer, count: int, log: Callable[[str], None]) -> None:
        self._tokenizer, self._log = tokenizer, log
        self._workers = [_Worker(tokenizer) for _ in range(count - 1)]

    def __getattr__(self, name: str) -> Any:
        """Return any other attribute of the tokenizer."""
        return getattr(self._tokenizer, name)

    def encode(self, texts: Sequence[tuple[str, ...]]) -> list[Encoding]:
        """Encode as `Tokenizer.encode` does."""
        return self._divide("encode", texts)

    def encode_whole(self, texts: Sequence[str]) -> list[Encoding]:
        """Encode as `Tokenizer.encode_whole` does."""
        return self._divide("encode_whole", texts)

    def encode_words(
        self, texts: Sequence[tuple[str, Sequence[tuple[int, int]]]], overlap: int
    ) -> list[tuple[Encoding, list[int]]]:
        """Encode as `Tokenizer.encode_words` does."""
        return self._divide("encode_words", texts, overlap)

    def _divide(self, method: str, texts: Sequence[Any], *arguments: Any) -> list[Any]:
        if len(texts) < MIN_TEXTS or not self._workers:
            return list(getattr(self._tokenizer, method)(texts, *arguments))
        # Half a share for this process, which has other work too.
        ends = np.cumsum([0, 1] + [2] * len(self._workers))
        cuts = (ends * len(texts) // ends[-1]).tolist()
        parts = [texts[start:stop] for start, stop in itertools.pairwise(cuts)]
        was_sent = [
            worker.send((method, part, *arguments))
            for worker, part in zip(self._workers, parts[1:], strict=True)
        ]
        results = list(getattr(self._tokenizer, method)(parts[0], *arguments))
        ended = []
        for worker, sent, part in zip(self._workers, was_sent, parts[1:], strict=True):
            result = worker.receive() if sent else None
            if result is None:
                ended.append(worker)
                result = getattr(self._tokenizer, method)(part, *arguments)
            results += result.to_list() if isinstance(result, PackedEncodings) else result
        if ended:
            self._log(
                f"note: {len(ended)} of {len(self._workers)} processes that tokenise ended; their part is "
                "done by the others"
            )
            self._workers = [worker for worker in self._workers if worker not in ended]
            for worker in ended:
                worker.close()
        return results

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
        self._stdin = cast(BinaryIO, self._process.stdin)
        self._stdout = cast(BinaryIO, self._process.stdout)
        self.send(sys.path)
        self.send(tokenizer)

    def send(self, value: Any) -> bool:
        """Send a value; return False where the process has ended."""
        try:
            pickle.dump(value, self._stdin, pickle.HIGHEST_PROTOCOL)
            self._stdin.flush()
        except OSError:
            return False
        return True

    def receive(self) -> Any:
        """Return the next result, or None where the process has ended."""
        try:
            return pickle.load(self._stdout)  # noqa: S301  (from our own process)
        except (OSError, EOFError, pickle.UnpicklingError):
            return None

    def close(self) -> None:
        for pipe in (self._stdin, self._stdout):
            with suppress(OSError):
                pipe.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def serve() -> None:
    """Encode the texts from standard input until it ends: the main function of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing else may write to the pipe of the results
    with suppress(EOFError, BrokenPipeError):
        tokenizer = pickle.load(sys.stdin.buffer)  # noqa: S301  (from the process that started this one)
        while True:
            method, *arguments = pickle.load(sys.stdin.buffer)  # noqa: S301
            result = getattr(tokenizer, method)(*arguments)
            if method == "encode" and type(tokenizer) is Tokenizer:
                result = _pack(result)
            pickle.dump(result, results, pickle.HIGHEST_PROTOCOL)
            results.flush()


def _pack(encodings: Sequence[Encoding]) -> PackedEncodings:
    """Put encodings into a few arrays, which go through a pipe much faster than many small ones."""
    offsets = np.zeros(len(encodings) + 1, np.int64)
    np.cumsum([len(encoding.input_ids) for encoding in encodings], out=offsets[1:])
    ids = np.concatenate([np.asarray(encoding.input_ids, np.int32) for encoding in encodings])
    types = np.concatenate([np.asarray(encoding.token_type_ids, np.uint8) for encoding in encodings])
    return PackedEncodings(
        ids,
        types if types.any() else None,
        offsets,
        np.array([encoding.num_truncated for encoding in encodings], np.int64),
    )
