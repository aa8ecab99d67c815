"""The texts by which `bertune trim` cuts a vocabulary, and their tokens."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bertune.config.reading import reading_config
from bertune.config.schema import DataConfig
from bertune.data.columns import SpreadValue
from bertune.data.labels import get_text, is_missing
from bertune.data.records import BadRows, ReadOptions
from bertune.data.rows import open_rows
from bertune.errors import DataError
from bertune.tasks.base.reading import iter_examples
from bertune.tasks.base.task import Task
from bertune.types import Columns, Encoding, Row

IntArray = npt.NDArray[np.int64]

TEXT_COLUMNS = Columns(
    ("text",),
    ("text_b", "negative"),
    "label",
    target_required=False,
    spreadable=("text", "negative", "label"),
)
"""The fields that are read from a row; the texts of all of them count."""
UNLIMITED = 1 << 30
"""Tokens of a text: the whole text counts, also what training would cut off."""
CHUNK_TEXTS = 8192
HELD_OUT_PART = 10
"""One text of so many is set aside where no file is given to measure on."""


class Text(NamedTuple):
    """A text, and for tasks of words where they begin and end."""

    text: str
    words: tuple[tuple[int, int], ...] | None = None


@dataclass
class TextFiles:
    """Reads the texts of files, in the way of a model.

    Attributes:
        data: how files are read.
        overrides: `data.name=value`, which count more.
        note: called with each line that a user should see.
        task: of the model, where bertune has trained it.
        lowers: whether the model lower-cases texts before its tokenizer.
    """

    data: DataConfig
    overrides: Sequence[str]
    note: Callable[[str], None]
    task: Task | None = None
    lowers: bool = False
    columns: Columns = field(init=False)

    def __post_init__(self) -> None:
        aliases = () if self.task is None else self.task.columns.text_aliases
        self.columns = Columns(**{**_fields(TEXT_COLUMNS), "text_aliases": aliases})

    def texts(self, files: Sequence[str]) -> Iterator[Text]:
        """Yield every text of some files.

        Raises:
            DataError: a file cannot be read, or a row cannot be used, or there is no text.
        """
        empty = True
        for file in files:
            data = reading_config(self.data, file, self.overrides)
            bad_rows = BadRows(skip=data.bad_rows == "skip")
            read = self._read_words if self.has_words else self._read_texts
            for text in read(file, data, bad_rows):
                empty = False
                yield text
            for line in bad_rows.finish():
                self.note(line)
        if empty:
            raise DataError(f"{', '.join(files)}: no text is there; give a file with a text a row")

    @property
    def has_words(self) -> bool:
        """Tell whether the model reads texts word by word."""
        return self.task is not None and self.task.columns.is_word_level

    def _read_texts(self, file: str, data: DataConfig, bad_rows: BadRows) -> Iterator[Text]:
        if isinstance(data.columns, dict):  # fields of other tasks hold no texts
            known = {*self.columns.required, *self.columns.optional, self.columns.target}
            columns = {name: column for name, column in data.columns.items() if name in known}
            data = data.model_copy(update={"columns": columns or None})
        options = ReadOptions(file, data, self.columns, bad_rows, self.note, require_target=False)
        reader = open_rows(options)
        if reader.header != ["text"]:
            self.note(reader.describe())
        for row in reader:
            try:
                texts = list(_texts_of(row, (*self.columns.required, *self.columns.optional)))
            except DataError as error:
                bad_rows(error)
                continue
            yield from (Text(text.lower() if self.lowers else text) for text in texts)

    def _read_words(self, file: str, data: DataConfig, bad_rows: BadRows) -> Iterator[Text]:
        if self.task is None:
            return
        task = self.task.with_data(data)
        for _, example in iter_examples(file, task, data, bad_rows, self.note, require_target=False):
            yield Text(example.texts[0], tuple((start, end) for start, end in example.words or ()))


def _fields(columns: Columns) -> dict[str, Any]:
    return {name: getattr(columns, name) for name in Columns.__dataclass_fields__}


def _texts_of(row: Row, names: Sequence[str]) -> Iterator[str]:
    """Yield the texts of a row: the first must be there, others may lack, and each may be a list."""
    for place, name in enumerate(names):
        value = row.fields.get(name)
        if isinstance(value, list | tuple):
            yield from (part for part in value if isinstance(part, str) and part.strip())
        elif place == 0:
            yield get_text(row, name)
        else:
            parts = value.values() if isinstance(value, SpreadValue) else [value]
            yield from (str(p) for p in parts if not is_missing(p) and isinstance(p, str) and p.strip())


def is_set_aside(text: str) -> bool:
    """Tell whether a text is one of those that are set aside; equal texts are on the same side."""
    digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=4).digest()
    return int.from_bytes(digest, "little") % HELD_OUT_PART == 0


def encode_texts(tokenizer: Any, texts: Sequence[Text]) -> Sequence[Encoding]:
    """Return the tokens of texts, as training makes them."""
    if texts and texts[0].words is not None:
        words = [(text.text, text.words or ()) for text in texts]
        return [encoding for encoding, _ in tokenizer.encode_words(words, 0)]
    encodings: Sequence[Encoding] = tokenizer.encode([(text.text,) for text in texts])
    return encodings


def chunks(texts: Iterator[Text]) -> Iterator[list[Text]]:
    """Yield texts in lists."""
    while chunk := list(itertools.islice(texts, CHUNK_TEXTS)):
        yield chunk


def count_ids(encodings: Sequence[Encoding], num_ids: int) -> IntArray:
    """Return how often each id occurs (num_ids,)."""
    if not encodings:
        return np.zeros(num_ids, np.int64)
    ids = np.concatenate([np.asarray(encoding.input_ids, np.int64) for encoding in encodings])
    return np.bincount(ids, minlength=num_ids)
