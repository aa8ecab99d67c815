"""Files as fastText reads them: `__label__positive what a day`, one text a line behind its labels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from bertune.data.records import ReadOptions, Record

PREFIX = "__label__"
_LABELS = re.compile(r"(?:^|(?<=\s))__label__(\S+)\s*")


def looks_like_fasttext(text: str) -> bool:
    """Tell whether the first lines of a file, the last maybe cut, are labelled as for fastText."""
    lines = [line for line in text.split("\n")[:50] if line.strip()]
    labelled = bool(lines) and all(line.startswith(PREFIX) for line in lines)
    first_labels = ["".join(split_labels(line)[0][:1]) for line in lines]
    return labelled and not all("," in label for label in first_labels)  # `__label__x,text` is a table


def split_labels(line: str) -> tuple[list[str], str]:
    """Return the labels of a line, wherever they stand, and the text without them.

    >>> split_labels("__label__a __label__b good food")
    (['a', 'b'], 'good food')
    """
    labels = [label for group in _LABELS.findall(line) for label in group.split("," + PREFIX)]
    return labels, _LABELS.sub("", line).strip()


def read_fasttext(options: ReadOptions, text: Iterable[str], *, several: bool) -> Iterator[Record]:
    """Yield the records of a file, with the columns text and label.

    Args:
        options: how to read the file.
        text: the lines.
        several: whether some line has several labels or none, so that each row has a list of labels.
    """
    num_blank = 0
    for line, content in enumerate(text, 1):
        if not content.strip():
            num_blank += 1
            continue
        labels, rest = split_labels(content)
        label = labels if several or len(labels) > 1 else labels[0] if labels else None
        yield Record(line, {"text": rest, "label": label})
    if num_blank:
        options.note(f"{options.source}: {num_blank} blank lines skipped")


def has_several_labels(text: Iterable[str]) -> bool:
    """Tell whether some line has several labels."""
    return any(len(split_labels(line)[0]) > 1 for line in text)
