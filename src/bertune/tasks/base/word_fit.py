"""How entities fit words: spans of characters to spans of words, and counts for a report."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from bertune.data.tags import WordSpan
from bertune.types import Span


@dataclass  # equal where the counts are: a task is compared with itself after `load_state`
class WordFit:
    """Turns entities into spans of words, and counts what did not fit when rows were encoded."""

    _counts: Counter[str] = field(default_factory=Counter)

    def to_word_spans(self, spans: Sequence[Span], words: Sequence[tuple[int, int]]) -> list[WordSpan]:
        """Return the words that each entity covers; count the entities that do not fit words.

        Args:
            spans: the entities of a text, in order.
            words: start and end of each word that has tokens.
        """
        starts, ends = [start for start, _ in words], [end for _, end in words]
        word_spans: list[WordSpan] = []
        self._counts["entities"] += len(spans)
        for span in spans:
            first = max(bisect_right(ends, span.start), word_spans[-1][1] if word_spans else 0)
            stop = bisect_left(starts, span.end)
            if first >= stop:
                self._counts["lost"] += 1
                continue
            self._counts["inexact"] += (starts[first], ends[stop - 1]) != span[:2]
            word_spans.append((first, stop, span.label))
        return word_spans

    def add_row(self, window_lengths: Sequence[int], num_without_tokens: int) -> None:
        """Count a text: the tokens of its windows, and its words without tokens."""
        is_long = len(window_lengths) > 1
        self._counts["rows"] += 1
        self._counts["long"] += is_long
        self._counts["windows"] += len(window_lengths) if is_long else 0
        self._counts["without tokens"] += num_without_tokens

    def report(self) -> list[str]:
        """Return what did not fit since the last call."""
        counts, self._counts = self._counts, Counter()
        lines = []
        if counts["long"]:
            lines.append(
                f"{counts['long']} of {counts['rows']} texts are longer than max_length "
                f"and are read in {counts['windows']} windows"
            )
        if counts["inexact"]:
            lines.append(
                f"{counts['inexact']} of {counts['entities']} entities begin or end inside a word: learned "
                "as the whole word and scored as they are, so they count as missed; "
                "options.units=characters may help"
            )
        if counts["lost"]:
            lost = f"{counts['lost']} of {counts['entities']} entities"
            lines.append(f"{lost} have no word of their own: they cannot be learned, and count as missed")
        if counts["without tokens"]:
            words = f"{counts['without tokens']} words are blank, or have no tokens"
            lines.append(f"{words}: they belong to the entity around them, or to none")
        return lines
