"""Rows of sets whose columns are not texts yet: how their own programs make texts of them.

Source: CLUEbenchmark/CLUE, baselines/models/classifier_utils.py; CLUEbenchmark/CLUENER2020, README;
hltcoe/golden-horse (a character and its place in its word).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from bertune.data.records import ReadOptions, Record
from bertune.errors import DataError

Values = dict[str, Any]


def convert_records(records: Iterator[Record], options: ReadOptions) -> Iterator[Record]:
    """Return records as `data.convert` makes them; rows of another form stay as they are.

    Rows that have the form and cannot be converted go to `options.bad_rows`.
    """
    name = options.settings.convert
    return records if name is None else _convert(records, options, name)


def _convert(records: Iterator[Record], options: ReadOptions, name: str) -> Iterator[Record]:
    columns, convert, what = _CONVERSIONS[name]
    num_other = 0
    is_noted = False
    for record in records:
        if not columns <= record.values.keys():
            num_other += 1
            yield record
            continue
        if not is_noted:
            options.note(f"{options.source}: {what} (data.convert={name})")
            is_noted = True
        try:
            values = convert(record.values)
        except DataError as error:
            options.bad_rows(f"{options.source}:{record.line}: {error}")
            continue
        yield record._replace(values={**record.values, **values})
    if num_other and is_noted:
        wanted = " and ".join(map(repr, sorted(columns)))
        options.note(
            f"{options.source}: {num_other} rows lack {wanted} and are read as they are (data.convert={name})"
        )


def join_keywords(values: Values) -> Values:
    """Return the texts of a row of CSL: its keywords with blanks between them, and the abstract.

    >>> join_keywords({"keyword": ["a", "b"], "abst": "c"})
    {'text': 'a b', 'text_b': 'c'}

    Raises:
        DataError: the keywords are no list of texts.
    """
    keywords = values["keyword"]
    if not isinstance(keywords, list) or not all(isinstance(word, str) for word in keywords):
        raise DataError(f"'keyword' must be a list of texts, got {keywords!r}")
    return {"text": " ".join(keywords), "text_b": values["abst"]}


def mark_spans(values: Values) -> Values:
    """Return the text of a row of CLUEWSC with its noun as _noun_ and its pronoun as [pronoun].

    >>> target = {"span1_index": 0, "span1_text": "Jo", "span2_index": 3, "span2_text": "he"}
    >>> mark_spans({"text": "Jo, he", "target": {**target, "span2_index": 4}})
    {'text': '_Jo_, [he]'}

    Raises:
        DataError: a span does not stand where its number says, or the two overlap.
    """
    text, target = values["text"], values["target"]
    if not isinstance(text, str):
        raise DataError(f"'text' must be a text, got {text!r}")
    try:
        noun, noun_at = target["span1_text"], int(target["span1_index"])
        pronoun, pronoun_at = target["span2_text"], int(target["span2_index"])
    except (TypeError, KeyError, ValueError):
        raise DataError(
            f"'target' needs span1_text, span1_index, span2_text, span2_index; got {target!r}"
        ) from None
    for word, start in ((noun, noun_at), (pronoun, pronoun_at)):
        if text[start : start + len(word)] != word:
            raise DataError(f"{word!r} does not stand at character {start} of the text")
    marks = sorted([(noun_at, noun, "_", "_"), (pronoun_at, pronoun, "[", "]")])
    if marks[0][0] + len(marks[0][1]) > marks[1][0]:
        raise DataError(f"{noun!r} and {pronoun!r} overlap")
    for start, word, before, after in reversed(marks):
        text = f"{text[:start]}{before}{word}{after}{text[start + len(word) :]}"
    return {"text": text}


def list_entities(values: Values) -> Values:
    """Return the spans of a row of CLUENER, whose ends are the last characters of entities.

    >>> list_entities({"text": "ab c", "label": {"name": {"ab": [[0, 1]]}}})
    {'label': [{'start': 0, 'end': 2, 'label': 'name'}]}

    Raises:
        DataError: a span does not hold the text of its entity.
    """
    text, by_type = values["text"], values["label"]
    if not isinstance(by_type, dict):
        return {"label": by_type}
    if not isinstance(text, str):
        raise DataError(f"'text' must be a text, got {text!r}")
    try:
        spans = [
            {"start": int(start), "end": int(last) + 1, "label": label, "entity": entity}
            for label, entities in by_type.items()
            for entity, places in entities.items()
            for start, last in places
        ]
    except (AttributeError, TypeError, ValueError):
        raise DataError(
            f"'label' must be {{TYPE: {{ENTITY: [[FIRST, LAST]]}}}}, got {str(by_type)[:80]}"
        ) from None
    for span in spans:
        entity, start, end = span.pop("entity"), span["start"], span["end"]
        if text[start:end] != entity:
            raise DataError(f"{entity!r} does not stand at characters {start} to {end - 1} of the text")
    return {"label": sorted(spans, key=lambda span: (span["start"], span["end"]))}


def strip_places(values: Values) -> Values:
    """Return the characters of a sentence of golden-horse, whose lines also have their places in words.

    >>> strip_places({"words": ["科0", "技1", "10"]})
    {'words': ['科', '技', '1']}

    Raises:
        DataError: a line is no character with a number behind it.
    """
    words = values["words"]
    strange = next((word for word in words if len(word) < 2 or not word[1:].isdecimal()), None)
    if strange is not None:
        raise DataError(f"{strange!r} is no character with a number behind it")
    return {"words": [word[0] for word in words]}


_CONVERSIONS: dict[str, tuple[set[str], Callable[[Values], Values], str]] = {
    "csl": (
        {"keyword", "abst"},
        join_keywords,
        "text is the keywords with blanks between, text_b the abstract",
    ),
    "cluewsc": ({"text", "target"}, mark_spans, "the noun is marked as _noun_, the pronoun as [pronoun]"),
    "golden_horse": ({"words"}, strip_places, "the number behind each character is left out"),
    "cluener": ({"text", "label"}, list_entities, "entities are read from a mapping of types"),
}
"""The columns that a row of the set has, what makes texts of them, and what is said about it."""
