"""Exports of annotation tools -> rows with a text and spans: Label Studio's full JSON, Prodigy, displaCy.

A task of Label Studio is `{"data": {"text": ...}, "annotations": [{"result": [{"value": {"start": 0,
"end": 4, "labels": ["PER"]}}]}]}`. Prodigy writes `answer`, and `tokens` that describe the text beside them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from bertune.data.records import ReadOptions, Record

_PRODIGY_KEYS = {"_task_hash", "_input_hash"}


def convert_exports(records: Iterator[Record], options: ReadOptions) -> Iterator[Record]:
    """Yield records; those of annotation tools as a text with spans. What was left out is said in the end.

    Args:
        records: the records of a file.
        options: how to read the file.
    """
    counts: Counter[str] = Counter()
    for record in records:
        values = record.values
        if isinstance(values.get("data"), dict) and ("annotations" in values or "completions" in values):
            converted = _from_label_studio(record, options, counts)
            if converted is not None:
                yield record._replace(values=converted)
        elif _PRODIGY_KEYS & values.keys():
            if values.get("answer", "accept") == "accept":
                yield record._replace(values={"spans": [], **values})
            else:
                counts["answers"] += 1
        else:
            yield record
    if counts["answers"]:
        options.note(
            f"{options.source}: {counts['answers']} rows left out, whose answer in Prodigy is not 'accept'"
        )
    if counts["label studio"]:
        options.note(f"{options.source}: {counts['label studio']} tasks of Label Studio's export")
    if counts["several"]:
        options.note(
            f"{options.source}: {counts['several']} tasks have several annotations: the ground truth is "
            "read, else the first"
        )


def text_column(record: Record) -> dict[str, str]:
    """Return the column of the text by field, where `tokens` describes a text that stands beside it."""
    values = record.values
    tokens = values.get("tokens")
    describes = isinstance(tokens, list) and all(isinstance(token, dict) for token in tokens)
    return {"text": "text"} if describes and isinstance(values.get("text"), str) else {}


def _from_label_studio(record: Record, options: ReadOptions, counts: Counter[str]) -> dict[str, Any] | None:
    """Return text and spans of a task; None for a bad row."""
    values = record.values
    texts = {key: value for key, value in values["data"].items() if isinstance(value, str)}
    if "text" not in texts and len(texts) != 1:
        found = ", ".join(map(repr, texts)) or "none"
        options.bad_rows(
            f"{options.source}:{record.line}: this task of Label Studio needs one text in 'data', or the key "
            f"'text'; texts found: {found}"
        )
        return None
    text = texts.get("text", next(iter(texts.values())))
    annotations = values.get("annotations", values.get("completions")) or []
    usable = [a for a in annotations if isinstance(a, dict) and not a.get("was_cancelled")]
    chosen = next((a for a in usable if a.get("ground_truth")), usable[0] if usable else None)
    counts["label studio"] += 1
    counts["several"] += len(usable) > 1
    return {"id": values.get("id"), "text": text, "spans": None if chosen is None else _label_spans(chosen)}


def _label_spans(annotation: dict[str, Any]) -> list[Any]:
    """Return the labelled regions of an annotation; choices and relations are no spans."""
    regions = [region.get("value") for region in annotation.get("result") or [] if isinstance(region, dict)]
    return [value for value in regions if isinstance(value, dict) and ("labels" in value or "start" in value)]
