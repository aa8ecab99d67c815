"""Rows with entities as files write them -> one text, its words, and the spans of its entities in characters.

| a row | where it comes from |
|---|---|
| `{"text": ["高", "勇"], "label": ["B-NAME", "E-NAME"]}` | bertorch, CoNLL files, `tokens` and `ner_tags` of the Hub |
| `{"text": "高勇来了", "label": ["B-NAME", "E-NAME", "O", "O"]}` | a tag for each character, or for each word between blanks |
| `{"text": "高勇来了", "spans": [{"start": 0, "end": 2, "label": "NAME"}]}` | spaCy, Prodigy; `labels: ["NAME"]` of Label Studio |
| `{"text": "高勇来了", "label": [[0, 2, "NAME"]]}` | doccano |
| `{"text": "高勇来了", "label": {"name": {"高勇": [[0, 1]]}}}` | CLUENER, whose ends are inclusive |
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Sequence
from typing import Any, Literal

from bertune.data.labels import check_surrogates, get_text, is_missing
from bertune.data.tags import Tag, TagCounts, parse_tag, tags_to_spans
from bertune.errors import DataError
from bertune.types import Row, Span

WordUnit = Literal["words", "characters"]
WordOffsets = tuple[tuple[int, int], ...]


def is_cjk(letter: str) -> bool:
    """Tell whether a character is a word by itself in Chinese, Japanese or Korean writing without blanks.

    >>> [is_cjk(c) for c in "勇あaé，"]
    [True, True, False, False, False]
    """
    return (
        letter in "々〆〇"
        or "\u3040" <= letter <= "\u9fff"
        or "\uf900" <= letter <= "\ufaff"
        or "\U00020000" <= letter <= "\U0003ffff"
    )


def split_words(text: str, unit: WordUnit) -> WordOffsets:
    """Cut a text into words: start and end of each. What is blank belongs to none.

    Args:
        text: any text.
        unit: `characters`: each one a word. `words`: runs of letters and digits with their accents, and everything else, Chinese
            characters among it, one by one.

    >>> [text[a:b] for text in ["iPhone6 涨价!"] for a, b in split_words(text, "words")]
    ['iPhone6', '涨', '价', '!']
    """
    places: list[tuple[int, int]] = []
    open_run = False
    for place, letter in enumerate(text):
        if letter.isspace():
            open_run = False
            continue
        marks = unicodedata.category(letter)[0] == "M"
        runs = unit == "words" and (marks or (letter.isalnum() and not is_cjk(letter)))
        if runs and places and (open_run or (marks and places[-1][1] == place)):
            places[-1] = (places[-1][0], place + 1)
        else:
            places.append((place, place + 1))
        open_run = runs and (open_run or not marks)
    return tuple(places)


def join_words(words: Sequence[str]) -> tuple[str, WordOffsets]:
    """Write words as one text; return it with start and end of each word.

    Between two words there is a blank, unless a Chinese character stands at their border or all words are single characters.

    >>> join_words(["EU", "rejects", "北京"])
    ('EU rejects北京', ((0, 2), (3, 10), (10, 12)))
    """
    by_character = all(len(word) <= 1 for word in words)
    parts: list[str] = []
    places = []
    end, last = 0, ""
    for word in words:
        if not by_character and last and word and not (is_cjk(last) or is_cjk(word[0])):
            parts.append(" ")
            end += 1
        parts.append(word)
        places.append((end, end + len(word)))
        end += len(word)
        last = word[-1:] or last
    return "".join(parts), tuple(places)


def get_words(row: Row, part: str) -> tuple[str, WordOffsets] | None:
    """Return the text and the words of a row that is cut into words; None where the row holds plain text.

    Raises:
        DataError: there are no words, or one is no text.
    """
    value = row.fields.get(part)
    if not isinstance(value, list | tuple):
        return None
    if not value:
        raise DataError(f"{row.location}: {part!r} is empty; remove the row, or set data.bad_rows=skip")
    for number, word in enumerate(value):
        if not isinstance(word, str | int | float) or isinstance(word, bool) or is_missing(word):
            raise DataError(
                f"{row.location.at_word(number)}: word {number + 1} of {part!r} must be text, got {word!r}"
            )
    words = [str(word) for word in value]
    text, places = join_words(words)
    return check_surrogates(text, row, part), places


def get_sentence(row: Row, part: str, target: str, unit: WordUnit) -> tuple[str, WordOffsets, bool]:
    """Return the text of a row, its words, and whether the row itself said which these are.

    Raises:
        DataError: the text is missing, empty or no text.
    """
    given = get_words(row, part)
    if given is not None:
        return *given, True
    text = get_text(row, part)
    tags = _tags(row.fields.get(target))
    if tags is not None and len(tags) != len(text) and len(tags) == len(text.split()):
        return text, tuple(word.span() for word in re.finditer(r"\S+", text)), True
    if tags is not None:
        return text, tuple((n, n + 1) for n in range(len(text))), True
    return text, split_words(text, unit), False


def _tags(value: Any) -> list[str] | None:
    """Return a value that is a list of tags, from a list of texts or a text of tags between blanks."""
    if isinstance(value, str) and value.strip():
        return value.split()
    if isinstance(value, list | tuple) and value and not isinstance(value[0], dict | list | tuple):
        return [str(tag).strip() for tag in value]
    return None


def get_entities(
    row: Row, target: str, text: str, words: WordOffsets, census: TagCounts
) -> tuple[Span, ...] | None:
    """Return the entities of a row as spans of characters, in order; None where the row says nothing of them.

    Raises:
        DataError: tags that are none, or not one a word; spans outside the text, or overlapping.
    """
    value = row.fields.get(target)
    if is_missing(value) or (isinstance(value, str) and not value.strip()):
        return None
    tags = _tags(value)
    if tags is None:
        return _spans(row, target, value, text)
    if len(tags) != len(words):
        raise DataError(
            f"{row.location}: {len(words)} words but {len(tags)} tags in {target!r}; there must be one for each word"
        )
    parsed: list[Tag] = []
    for number, tag in enumerate(tags):
        try:
            parsed.append(parse_tag(tag))
        except DataError as error:
            word = text[slice(*words[number])]
            raise DataError(
                f"{row.location.at_word(number)}: word {number + 1} ({word!r}): {error}"
            ) from None
    census.add(tags, parsed, str(row.location))
    return tuple(
        Span(words[start][0], words[end - 1][1], label) for start, end, label in tags_to_spans(parsed)
    )


def _spans(row: Row, target: str, value: Any, text: str) -> tuple[Span, ...]:
    found = sorted(_span(row, target, one, text) for one in _listed(row, target, value))
    for first, second in itertools.pairwise(found):
        if second.start < first.end:
            raise DataError(
                f"{row.location}: the spans {_shown(first, text)} and {_shown(second, text)} overlap, and a word has one label only: "
                "keep one of them, or set data.bad_rows=skip to leave out such rows"
            )
    return tuple(found)


def _shown(span: Span, text: str) -> str:
    return f"{span.start} to {span.end} {span.label!r} ({text[span.start : span.end]!r})"


def _listed(row: Row, target: str, value: Any) -> list[Any]:
    if isinstance(value, dict) and all(isinstance(texts, dict) for texts in value.values()):  # CLUENER
        try:
            return [
                {"start": start, "end": end + 1, "label": label, "text": said}
                for label, texts in value.items()
                for said, places in texts.items()
                for start, end in places
            ]
        except (TypeError, ValueError):
            raise DataError(
                f"{row.location}: {target!r} is no mapping of the form {{label: {{text: [[start, last]]}}}}"
            ) from None
    if not isinstance(value, list | tuple):
        raise DataError(
            f"{row.location}: {target!r} must be a list of tags or of spans, got {type(value).__name__} ({str(value)[:40]!r})"
        )
    return list(value)


def _span(row: Row, target: str, one: Any, text: str) -> Span:
    """Read one span, whichever way it is written.

    Raises:
        DataError: start, end or label is missing, the span lies outside the text, or its own text is another one.
    """
    said = start = end = label = None
    if isinstance(one, dict):
        start, end = (one.get(name, one.get(f"{name}_offset")) for name in ("start", "end"))
        label = one.get("label", one.get("labels", one.get("type", one.get("entity_group"))))
        label = label[0] if isinstance(label, list) and len(label) == 1 else label
        said = one.get("text", one.get("word"))
    elif isinstance(one, list | tuple) and len(one) == 3:
        start, end, label = one
    if type(start) is not int or type(end) is not int or not isinstance(label, str) or not label.strip():
        raise DataError(
            f"{row.location}: {str(one)[:60]} in {target!r} is no span; write start, end and label, or [start, end, label]"
        )
    if not 0 <= start < end <= len(text):
        raise DataError(
            f"{row.location}: the span {start} to {end} {label!r} lies outside the text of {len(text)} characters, or is empty; "
            "start counts from 0, end is the place after the last character"
        )
    if isinstance(said, str) and said != text[start:end]:
        raise DataError(
            f"{row.location}: the span {start} to {end} {label!r} says that its text is {said!r}, but there stands {text[start:end]!r}; "
            "places count characters (an emoji is one, though some tools count it as two)"
        )
    return Span(start, end, label.strip())
