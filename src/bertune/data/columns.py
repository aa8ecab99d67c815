"""Which column of a file plays which part: as the user says, else by well-known names, and always reported."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bertune.errors import ConfigError, DataError, did_you_mean, listed
from bertune.types import Columns

# Names are compared without case, blanks, "_" and "-": "Sentence 1" is "sentence1".
PAIR_ALIASES: tuple[tuple[str, str], ...] = (
    ("text", "textb"),
    ("texta", "textb"),
    ("text1", "text2"),
    ("sentence1", "sentence2"),  # GLUE, CLUE
    ("sentencea", "sentenceb"),
    ("premise", "hypothesis"),  # MNLI, XNLI
    ("question1", "question2"),  # QQP
    ("question", "sentence"),  # QNLI
    ("sequence1", "sequence2"),  # run_base.py
    ("#1string", "#2string"),  # MRPC
    ("query", "title"),  # SimCLUE
    ("query", "document"),
    ("query", "passage"),
    ("query", "positive"),
    ("anchor", "positive"),  # sentence-transformers
    ("text", "positive"),
    ("文本1", "文本2"),
    ("句子1", "句子2"),
)
TEXT_ALIASES = (
    *(
        "text",
        "texta",
        "sentence",
        "sentence1",
        "sequence1",
        "review",
        "content",
        "message",
        "comment",
        "title",
    ),
    *("query", "question", "body", "文本", "内容", "评论", "标题", "句子", "正文"),
)
TARGET_ALIASES = (
    *(
        "label",
        "labels",
        "target",
        "class",
        "category",
        "intent",
        "sentiment",
        "score",
        "quality",
        "rating",
        "stars",
    ),
    *("标签", "类别", "分类", "分数", "情感"),
)


OTHER_ALIASES = {
    "negative": ("negative", "neg", "hardnegative", "negtitle", "negativetext", "text3", "sentence3")
}
"""Names of parts beside text and target."""


def normalize_name(name: str) -> str:
    """Return a column name in the form in which names are compared.

    >>> normalize_name(" Sentence 1")
    'sentence1'
    """
    return re.sub(r"[\s_\-]+", "", name).lower()


def match_columns(
    header: Sequence[str],
    given: dict[str, str] | None,
    columns: Columns,
    source: str,
    *,
    require_target: bool,
) -> dict[str, str]:
    """Find the column of each part.

    Args:
        header: the names of the columns of the file.
        given: the user's own mapping, part to column.
        columns: what the task reads.
        source: the file, for messages.
        require_target: whether a missing target is an error.

    Returns:
        Part to column; optional parts that are not there are left out.

    Raises:
        ConfigError: the mapping names a part that the task does not have.
        DataError: a column is not there, or two columns could play one part.
    """
    given = given or {}
    known = (*columns.required, *columns.optional, columns.target)
    for part in given:
        if part not in known:
            raise ConfigError(
                f"data.columns: {part!r} is no part of this task{did_you_mean(part, known)}; parts: {', '.join(known)}"
            )
    found: dict[str, str] = {}
    for part, column in given.items():
        if column in header:
            found[part] = column
        elif part != columns.target or require_target:
            raise DataError(f"{source}: no column {column!r} for {part!r}; columns found: {listed(header)}")
    chosen = set(found.values())
    if "text" in known and "text" not in given:
        taken = set(found.values())
        found.update(
            match_text_columns(
                [c for c in header if c not in taken],
                columns,
                pair="text_b" in known and "text_b" not in given,
            )
        )
    for part in (p for p in OTHER_ALIASES if p in known and p not in given):
        other = _first(OTHER_ALIASES[part], [c for c in header if c not in found.values()])
        if other:
            found[part] = other
    if columns.target not in given:
        target = _first(
            (*columns.target_aliases, *TARGET_ALIASES), [c for c in header if c not in found.values()]
        )
        if target:
            found[columns.target] = target
    _no_rivals(
        {p: c for p, c in found.items() if p not in given}, [c for c in header if c not in chosen], source
    )
    missing = [
        p for p in (*columns.required, *([columns.target] if require_target else [])) if p not in found
    ]
    if missing:
        tabs = (
            "the line holds tabs: set data.delimiter=tab; " if len(header) == 1 and "\t" in header[0] else ""
        )
        raise DataError(
            f"{source}: no column for {' and '.join(map(repr, missing))}; columns found: {listed(header)}; {tabs}"
            f"say which is which, as in data.columns={{{missing[0]}: NAME}}, "
            "or name the columns of a file without header, as in data.columns=[text,label]"
        )
    return found


def _no_rivals(recognised: dict[str, str], header: Sequence[str], source: str) -> None:
    for part, column in recognised.items():
        alike = [c for c in header if normalize_name(c) == normalize_name(column)]
        if len(alike) > 1:
            both = " and ".join(map(repr, alike))
            raise DataError(
                f"{source}: columns {both} could both be {part!r}; say which, as in data.columns={{{part}: NAME}}"
            )


def match_text_columns(header: Sequence[str], columns: Columns, *, pair: bool = False) -> dict[str, str]:
    """Find the column of the text, or those of both texts of a pair, by well-known names."""
    names = {normalize_name(column): column for column in header}
    if pair:
        for first, second in PAIR_ALIASES:
            if first in names and second in names:
                return {"text": names[first], "text_b": names[second]}
    single = _first((*columns.text_aliases, *TEXT_ALIASES), header)
    return {"text": single} if single else {}


def _first(wanted: Sequence[str], header: Sequence[str]) -> str | None:
    names = {normalize_name(column): column for column in header}
    return next((names[name] for name in wanted if name in names), None)
