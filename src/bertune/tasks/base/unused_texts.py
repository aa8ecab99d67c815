"""Columns of a file that hold texts but no field of a row."""

from __future__ import annotations

import re

from bertune.data.columns import ColumnMapping, columns_of, is_negative_name, normalize_name
from bertune.errors import listed
from bertune.types import Row


class UnusedTexts:
    """Finds columns of a file that hold texts but no field.

    Half of a data set of pairs would be left out without a word if its second text went unnoticed.
    """

    SAMPLE = 200
    """Rows that are looked at."""

    def __init__(self, mapping: ColumnMapping) -> None:
        self.mapping = mapping
        texts: ColumnMapping = {f: mapping[f] for f in ("text", "text_b", "negative") if f in mapping}
        self._used = set(columns_of(texts))  # a label in many words may be a text, such as "target"
        self._num_rows = 0
        self._values: dict[str, list[str]] = {}
        self._num_text_words = 0

    def look_at(self, row: Row) -> None:
        """Look at the unused columns of a row."""
        if self._num_rows == self.SAMPLE:
            return
        self._num_rows += 1
        self._num_text_words += _num_words(str(row.fields.get("text")))
        for column, value in row.raw.items():
            is_read = column in self._used or ("negative" in row.fields and is_negative_name(column))
            if not is_read:
                text = value[0] if isinstance(value, list) and value else value
                if isinstance(text, str) and text.strip():
                    self._values.setdefault(column, []).append(text)

    def columns(self) -> list[str]:
        """Return the columns that hold texts."""
        return [column for column, values in self._values.items() if self._are_texts(values)]

    def _are_texts(self, values: list[str]) -> bool:
        """Tell whether values are texts: of several words, most rows have one, and few are repeated."""
        return (
            _mean_words(values) >= 2.5
            and len(values) * 2 > self._num_rows
            and len(set(values)) * 2 > len(values)
        )

    def are_short(self) -> bool:
        """Tell whether these texts are short beside those that are read, such as titles beside articles."""
        read = self._num_text_words / max(1, self._num_rows)
        return all(3 * _mean_words(self._values[column]) < read for column in self.columns())

    def has(self, name: str) -> bool:
        """Tell whether there is an unused column of this name."""
        return any(normalize_name(column) == name for column in self._values)

    def advice_for_single_texts(self) -> str:
        """Return how to say which of the columns is meant, or "" if only one holds texts."""
        columns, text = self.columns(), self.mapping.get("text")
        if not columns or not isinstance(text, str):
            return ""
        other = columns[0]
        return (
            f"{'columns' if len(columns) > 1 else 'column'} {listed(columns)} not read, but "
            f"{'hold' if len(columns) > 1 else 'holds'} texts too; say what is meant: "
            f"data.columns={{text: {text}, text_b: {other}}} for pairs that belong together, "
            f"data.columns={{text: [{text}, {other}]}} for both joined to one text, or "
            f"data.columns={{text: {text}}} for {text!r} alone"
        )

    def advice_for_pairs(self) -> str:
        """Return how a column of texts beside a pair could be read, or "" if there is none."""
        columns = self.columns()
        fields = {field: names for field, names in self.mapping.items() if field != "negative"}
        if not columns or not all(isinstance(names, str) for names in fields.values()):
            return ""
        given = ", ".join(f"{field}: {name}" for field, name in fields.items())
        return (
            f"{listed(columns)} not read, although there are texts in it; to read it as hard negatives: "
            f"data.columns={{{given}, negative: {columns[0]}}}"
        )


def _mean_words(texts: list[str]) -> float:
    return sum(map(_num_words, texts)) / len(texts)


def _num_words(text: str) -> int:
    """Return the number of words of letters; two Chinese, Japanese or Korean characters count as one."""
    characters = len(re.findall(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]", text))
    words = sum(bool(re.search(r"[^\W\d_]", word)) for word in text.split())
    return max(words, characters // 2)
