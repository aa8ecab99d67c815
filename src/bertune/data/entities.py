"""Rows with entities -> a text, its words, and spans of characters.

A row is written in one of these forms:

- `{"text": ["高", "勇"], "label": ["B-NAME", "E-NAME"]}`: words and tags, as in CoNLL files, bertorch, and
  `tokens` and `ner_tags` of the Hub.
- `{"text": "高勇来了", "label": ["B-NAME", "E-NAME", "O", "O"]}`: a tag for each character, or for each word
  between blanks.
- `{"text": "高勇来了", "spans": [{"start": 0, "end": 2, "label": "NAME"}]}`: spaCy, Prodigy; Label Studio
  writes `"labels": ["NAME"]`.
- `{"text": "高勇来了", "label": [[0, 2, "NAME"]]}`: doccano.
- `{"text": "高勇来了", "label": {"name": {"高勇": [[0, 1]]}}}`: CLUENER, whose ends are inclusive.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, Literal

from bertune.data.labels import check_surrogates, format_label, get_text, is_missing
from bertune.data.tags import Scheme, Tag, WordSpan, read_tag, tags_to_spans
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
    """Split a text into words; return start and end of each. Blanks belong to no word.

    Args:
        text: any text.
        unit: `characters`: every character is a word. `words`: a run of letters and digits with their accents
            is a word; any other character, such as a Chinese one, is a word by itself.

    >>> [text[a:b] for text in ["iPhone6 涨价!"] for a, b in split_words(text, "words")]
    ['iPhone6', '涨', '价', '!']
    """
    words: list[tuple[int, int]] = []
    in_run = False
    for offset, letter in enumerate(text):
        if letter.isspace():
            in_run = False
            continue
        is_accent = unicodedata.category(letter)[0] == "M"
        joins_runs = unit == "words" and (is_accent or (letter.isalnum() and not is_cjk(letter)))
        if joins_runs and words and (in_run or (is_accent and words[-1][1] == offset)):
            words[-1] = (words[-1][0], offset + 1)
        else:
            words.append((offset, offset + 1))
        in_run = joins_runs and (in_run or not is_accent)
    return tuple(words)


def join_words(words: Sequence[str]) -> tuple[str, WordOffsets]:
    """Join words to one text; return it with start and end of each word.

    A blank separates two words, unless a Chinese character stands at their border or all words are single
    characters.

    >>> join_words(["EU", "rejects", "北京"])
    ('EU rejects北京', ((0, 2), (3, 10), (10, 12)))
    """
    by_character = all(len(word) <= 1 for word in words)
    parts: list[str] = []
    offsets = []
    end, last = 0, ""
    for word in words:
        if not by_character and last and word and not (is_cjk(last) or is_cjk(word[0])):
            parts.append(" ")
            end += 1
        parts.append(word)
        offsets.append((end, end + len(word)))
        end += len(word)
        last = word[-1:] or last
    return "".join(parts), tuple(offsets)


def get_words(row: Row, field: str) -> tuple[str, WordOffsets] | None:
    """Return text and words of a row that lists its words; None for a row with plain text.

    Raises:
        DataError: the list is empty, or a word is not text.
    """
    value = row.fields.get(field)
    if not isinstance(value, list | tuple):
        return None
    if not value:
        raise DataError(f"{row.location}: {field!r} is empty; remove the row, or set data.bad_rows=skip")
    for number, word in enumerate(value):
        if not isinstance(word, str | int | float) or isinstance(word, bool) or is_missing(word):
            raise DataError(
                f"{row.location.at_word(number)}: word {number + 1} of {field!r} must be text, got {word!r}"
            )
    text, offsets = join_words([str(word) for word in value])
    return check_surrogates(text, row, field), offsets


def get_sentence(row: Row, field: str, target: str, unit: WordUnit) -> tuple[str, WordOffsets, bool]:
    """Return the text of a row, its words, and whether the row itself defines the words.

    Raises:
        DataError: the text is missing, empty, or not text.
    """
    given = get_words(row, field)
    if given is not None:
        return *given, True
    text = get_text(row, field)
    tags = _written_tags(row, target)
    if tags is not None and len(tags) != len(text) and len(tags) == len(text.split()):
        return text, tuple(word.span() for word in re.finditer(r"\S+", text)), True
    if tags is not None:
        return text, tuple((n, n + 1) for n in range(len(text))), True
    return text, split_words(text, unit), False


def _written_tags(row: Row, target: str) -> list[Any] | None:
    """Return the tags of a row as they are written; None for spans or nothing."""
    value = row.fields.get(target)
    if isinstance(value, str) and value.strip():
        return list(value.split())
    if isinstance(value, list | tuple) and value and not isinstance(value[0], dict | list | tuple):
        return list(value)
    return None


def is_invisible(letter: str) -> bool:
    """Tell whether a character shows nothing: blanks, control characters, and marks such as U+200B.

    >>> [is_invisible(letter) for letter in " \u3000\u200b\ufeffa"]
    [True, True, True, True, False]
    """
    return letter.isspace() or unicodedata.category(letter) in {"Cc", "Cf"}


def _visible_range(text: str, start: int, end: int) -> tuple[int, int]:
    """Return the part of a range without blanks at its edges; an empty one where it is nothing else."""
    while start < end and is_invisible(text[start]):
        start += 1
    while start < end and is_invisible(text[end - 1]):
        end -= 1
    return start, end


def get_tags(row: Row, target: str, get_names: Callable[[], Sequence[str]] = tuple) -> list[str] | None:
    """Return the tags of a row, of a list or a text with blanks between them; None for spans or nothing.

    Args:
        row: the row.
        target: the field with tags or spans.
        get_names: returns the names of tags by position, for rows that write numbers; called for these only.

    Raises:
        DataError: a number has no name.
    """
    written = _written_tags(row, target)
    if written is None:
        return None
    tags = [tag.strip() if isinstance(tag, str) else format_label(tag) for tag in written]
    names = get_names() if all(map(_is_number, tags)) else ()
    if not names or set(tags) <= set(names):
        return tags
    for number, tag in enumerate(tags):
        if not 0 <= int(tag) < len(names):
            raise DataError(
                f"{row.location.at_word(number)}: word {number + 1}: the tag {tag} has no name; data.labels "
                f"names {len(names)} tags, 0 to {len(names) - 1}"
            )
    return [names[int(tag)] for tag in tags]


def _is_number(tag: str) -> bool:
    return tag.removeprefix("-").isdecimal()


def get_entities(
    row: Row,
    target: str,
    text: str,
    words: WordOffsets,
    scheme: Scheme = "BIO",
    get_names: Callable[[], Sequence[str]] = tuple,
) -> tuple[Span, ...] | None:
    """Return the entities of a row as spans of characters, in order; None for a row without target.

    Args:
        row: the row.
        target: the field with tags or spans.
        text: the text of the row.
        words: start and end of its words.
        scheme: the tags of the model; `io` and `none` read tags without prefixes.
        get_names: returns the names of tags by position, for rows that write numbers; called for these only.

    Raises:
        DataError: a tag is not valid, words and tags differ in number, or spans overlap or leave the text.
    """
    value = row.fields.get(target)
    if is_missing(value) or (isinstance(value, str) and not value.strip()):
        return None
    tags = get_tags(row, target, get_names)
    if tags is None and scheme != "none":
        return _spans(row, target, value, text, words)[0]
    if tags is None:
        raise DataError(
            f"{row.location}: {target!r} must be a list with a tag for each word, since options.scheme=none; "
            f"got {str(value)[:40]}"
        )
    parsed = parse_tags(row, target, tags, text, words, scheme)
    spans = (_trim_words(span, text, words) for span in tags_to_spans(parsed))
    return tuple(Span(words[start][0], words[end - 1][1], label) for start, end, label in spans)


def parse_tags(
    row: Row, target: str, tags: Sequence[str], text: str, words: WordOffsets, scheme: Scheme
) -> list[Tag]:
    """Return prefix and type of each tag of a row.

    Raises:
        DataError: a tag is not valid, or words and tags differ in number.
    """
    if len(tags) != len(words):
        raise DataError(
            f"{row.location}: {len(words)} words but {len(tags)} tags in {target!r}; "
            "there must be one for each word"
        )
    parsed: list[Tag] = []
    for number, tag in enumerate(tags):
        try:
            parsed.append(read_tag(tag, scheme))
        except DataError as error:
            word = text[slice(*words[number])]
            raise DataError(
                f"{row.location.at_word(number)}: word {number + 1} ({word!r}): {error}"
            ) from None
    return parsed


def _trim_words(span: WordSpan, text: str, words: WordOffsets) -> WordSpan:
    """Return a span of words without blank words at its edges, unless all are blank."""
    start, end, label = span
    full = [n for n in range(start, end) if len(set(_visible_range(text, *words[n]))) > 1]
    return (full[0], full[-1] + 1, label) if full else span


def count_trimmed(row: Row, target: str, text: str, words: WordOffsets) -> int:
    """Return how many spans of a row have blanks at their edges, which do not belong to them."""
    value = row.fields.get(target)
    if is_missing(value) or isinstance(value, str) or _written_tags(row, target) is not None:
        return 0
    return _spans(row, target, value, text, words)[1]


def _spans(row: Row, target: str, value: Any, text: str, words: WordOffsets) -> tuple[tuple[Span, ...], int]:
    """Return the spans of a row, in order, and how many had blanks at their edges; they must not overlap."""
    written = [_span(row, target, item, text) for item in _span_items(row, target, value)]
    trimmed = [_trim_blanks(span, text, words) for span in written]
    for span, rest in zip(written, trimmed, strict=True):
        if rest.start == rest.end:
            raise DataError(
                f"{row.location}: the span {_format_span(span, text)} is nothing but blanks; remove it"
            )
    spans = sorted(trimmed)
    for first, second in itertools.pairwise(spans):
        if second.start < first.end:
            raise DataError(
                f"{row.location}: the spans {_format_span(first, text)} and {_format_span(second, text)} "
                "overlap, and a word has one label only: keep one of them, or set data.bad_rows=skip to "
                "leave out such rows"
            )
    return tuple(spans), sum(a != b for a, b in zip(written, trimmed, strict=True))


def _trim_blanks(span: Span, text: str, words: WordOffsets) -> Span:
    """Return a span without blanks at its edges; words that have blanks of their own keep them."""
    start, end = _visible_range(text, span.start, span.end)
    if start < end and (start, end) != span[:2]:
        full = [word for word in words if len(set(_visible_range(text, *word))) > 1]
        start = span.start if any(span.start == word[0] for word in full) else start
        end = span.end if any(span.end == word[1] for word in full) else end
    return Span(start, end, span.label)


def _format_span(span: Span, text: str) -> str:
    return f"{span.start} to {span.end} {span.label!r} ({text[span.start : span.end]!r})"


def _span_items(row: Row, target: str, value: Any) -> list[Any]:
    """Return spans as a list; CLUENER's mapping becomes one."""
    if isinstance(value, dict) and all(isinstance(texts, dict) for texts in value.values()):  # CLUENER
        try:
            return [
                {"start": start, "end": last + 1, "label": label, "text": span_text}
                for label, texts in value.items()
                for span_text, offsets in texts.items()
                for start, last in offsets
            ]
        except (TypeError, ValueError):
            raise DataError(
                f"{row.location}: {target!r} is not a mapping of the form "
                "{label: {text: [[start, last]]}}"
            ) from None
    if not isinstance(value, list | tuple):
        raise DataError(
            f"{row.location}: {target!r} must be a list of tags or of spans, "
            f"got {type(value).__name__} ({str(value)[:40]!r})"
        )
    return list(value)


def _span(row: Row, target: str, item: Any, text: str) -> Span:
    """Return one span, written in any of the forms of this module's docstring.

    Raises:
        DataError: start, end or label is missing, the span leaves the text, or its own text is another one.
    """
    start = end = label = span_text = None
    if isinstance(item, dict):
        start, end = (item.get(name, item.get(f"{name}_offset")) for name in ("start", "end"))
        label = item.get("label", item.get("labels", item.get("type", item.get("entity_group"))))
        label = label[0] if isinstance(label, list) and len(label) == 1 else label
        span_text = item.get("text", item.get("word"))
    elif isinstance(item, list | tuple) and len(item) == 3:
        start, end, label = item
    if type(start) is not int or type(end) is not int or not isinstance(label, str) or not label.strip():
        raise DataError(
            f"{row.location}: {str(item)[:60]} in {target!r} is not a span; "
            "write start, end and label, or [start, end, label]"
        )
    if not 0 <= start < end <= len(text):
        raise DataError(
            f"{row.location}: the span {start} to {end} {label!r} lies outside the text of {len(text)} "
            "characters, or is empty; start counts from 0, end is the offset after the last character"
        )
    if isinstance(span_text, str) and span_text.strip() != text[start:end].strip():
        raise DataError(
            f"{row.location}: the span {start} to {end} {label!r} says that its text is {span_text!r}, "
            f"but the text there is {text[start:end]!r}; "
            "offsets count characters (an emoji is one, though some tools count it as two)"
        )
    return Span(start, end, label.strip())
