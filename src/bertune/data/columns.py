"""Which column of a file holds which field of a row: as the user says, else by well-known names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from bertune.errors import ConfigError, DataError, did_you_mean, listed
from bertune.types import Columns


class MissingColumn(DataError):
    """No column holds a field that is needed.

    Attributes:
        fields: the fields.
    """

    def __init__(self, message: str, fields: Sequence[str]) -> None:
        super().__init__(message)
        self.fields = tuple(fields)


ColumnMapping = dict[str, str | tuple[str, ...]]
"""Column by field; a tuple of columns for a field that is spread over several."""

# Names are compared without case, blanks, "_" and "-": "Sentence 1" is "sentence1".
PAIR_ALIASES: tuple[tuple[str, str], ...] = (
    ("sentence0", "sentence1"),  # sentence-transformers; before those that begin with 1
    ("sent0", "sent1"),  # SimCSE
    ("text0", "text1"),
    ("text", "textb"),
    ("texta", "textb"),
    ("text1", "text2"),
    ("sent1", "sent2"),
    ("sentence1", "sentence2"),  # GLUE, CLUE
    ("sentencea", "sentenceb"),
    ("premise", "hypothesis"),  # MNLI, XNLI
    ("question1", "question2"),  # QQP
    ("question", "sentence"),  # QNLI
    ("sequence1", "sequence2"),  # run_base.py
    ("#1string", "#2string"),  # MRPC
    ("query", "positive"),
    ("anchor", "positive"),  # sentence-transformers
    ("text", "positive"),
    ("query", "title"),  # SimCLUE
    ("query", "document"),
    ("query", "passage"),
    ("文本1", "文本2"),
    ("句子1", "句子2"),
)
"""Names of two texts that are compared or read together, in every task. An earlier pair wins."""
RELATED_PAIRS: tuple[tuple[str, str], ...] = (
    ("text", "positives"), ("sentence", "positive"), ("sentence", "positives"),
    *((first, second) for first in ("query", "question", "anchor")
      for second in ("positive", "pos", "positives", "positivepassage", "positivepassages", "positivectxs",
                     "document", "documents", "doc", "docs", "passage", "passages",
                     "answer", "response", "reply")),
    ("text", "text2"), ("sentence", "sentence2"), ("text", "paraphrase"), ("sentence", "paraphrase"),
    ("prompt", "response"), ("prompt", "completion"), ("prompt", "answer"), ("instruction", "response"),
    ("instruction", "output"), ("context", "response"), ("utterance", "response"), ("message", "reply"),
    ("query", "text"), ("question", "context"),
    ("inputtext", "targettext"), ("sourcetext", "targettext"), ("text", "targettext"),
    ("title", "body"), ("title", "abstract"), ("headline", "body"), ("headline", "article"),
    ("summary", "text"), ("summary", "article"), ("summary", "document"), ("highlights", "article"),
    ("claim", "evidence"),
    ("问题", "回答"), ("问题", "答案"), ("问", "答"), ("标题", "正文"), ("标题", "摘要"), ("查询", "文档"),
    ("文本a", "文本b"), ("句子a", "句子b"), ("文本", "正例"), ("句子", "正例"),
)  # fmt: skip
"""Names of two texts that belong together. Tasks on pairs know them; for others each may be a text alone."""
LOOSE_PAIRS: tuple[tuple[str, str], ...] = (("source", "target"), ("src", "tgt"))
"""More of these, which often mean something else: only where no column has the name of a text."""
TEXT_ALIASES = (
    "text", "texta", "sentence", "sentence1", "sequence1", "review", "content", "message", "comment", "title",
    "query", "question", "body", "文本", "内容", "评论", "标题", "句子", "正文",
)  # fmt: skip
TARGET_ALIASES = (
    "label", "labels", "target", "class", "category", "intent", "sentiment", "score", "quality", "rating",
    "stars", "标签", "类别", "分类", "分数", "情感",
)  # fmt: skip
OTHER_ALIASES: dict[str, tuple[str, ...]] = {
    "negative": (
        "negative", "neg", "hardnegative", "hardneg", "negtitle", "negativetext", "text3", "sentence3",
        "negatives", "negs", "hardnegatives", "hardnegs", "negativetexts", "negdoc", "negativedoc",
        "negativedocument", "negativedocuments", "negpassage", "negativepassage", "negativepassages",
        "negativectxs", "hardnegativectxs",
        "sentence2", "text2", "sent2", "sent3", "负例", "负样本",
    )
}  # fmt: skip
"""Names of the fields besides texts and target."""
_NUMBERED_NEGATIVE = re.compile(r"(negative|neg|hardnegative|hardneg|negativetext|负例|负样本)\d+")


def normalize_name(name: str) -> str:
    """Return a column name in the form in which names are compared.

    >>> normalize_name(" Sentence 1")
    'sentence1'
    """
    return re.sub(r"[\s_\-]+", "", name).lower()


def match_columns(
    header: Sequence[str],
    given: Mapping[str, str | list[str]] | None,
    columns: Columns,
    source: str,
    *,
    require_target: bool,
) -> ColumnMapping:
    """Find the column of each field.

    Args:
        header: the column names of the file.
        given: the user's own mapping, field to column.
        columns: the fields that the task reads.
        source: the file, for messages.
        require_target: whether a missing target is an error.

    Returns:
        Column name by field, a tuple of names for a field that is spread over several columns; an optional
        field without column is left out.

    Raises:
        ConfigError: the mapping names a field that the task does not have, or several columns for a field
            that has one.
        DataError: a column is missing, or two columns match one field.
    """
    given = given or {}
    fields = (*columns.required, *columns.optional, columns.target)
    for field in given:
        if field not in fields:
            raise ConfigError(
                f"data.columns: {field!r} is not a field of this task{did_you_mean(field, fields)}; "
                f"fields: {', '.join(fields)}"
            )
    mapping: ColumnMapping = {}
    for field, names in given.items():
        if isinstance(names, list) and field not in columns.spreadable:
            raise ConfigError(f"data.columns: {field!r} is one column, got {len(names)}: {listed(names)}")
        absent = next((name for name in _as_tuple(names) if name not in header), None)
        if absent is None:
            mapping[field] = tuple(names) if isinstance(names, list) else names
        elif field != columns.target or require_target:
            raise DataError(f"{source}: no column {absent!r} for {field!r}; columns found: {listed(header)}")
    taken = columns_of(mapping)
    rest = [column for column in header if column not in taken]
    recognised = _recognise([field for field in fields if field not in given], rest, columns)
    _refuse_ambiguous(recognised, rest, source)
    mapping |= recognised
    needed = (*columns.required, *([columns.target] if require_target else []))
    missing = [field for field in needed if field not in mapping]
    if missing:
        raise MissingColumn(
            f"{source}: no column for {' and '.join(map(repr, missing))}; columns found: {listed(header)}; "
            + _advice_on_missing(missing, header, mapping, columns.target),
            missing,
        )
    return mapping


def _advice_on_missing(
    missing: Sequence[str], header: Sequence[str], mapping: ColumnMapping, target: str
) -> str:
    """Return what to do about fields without a column."""
    if len(header) > 1 and missing == [target] and len(columns_of(mapping)) == len(header):
        unlabelled = "; task embed learns from texts that belong together without labels"
        return f"no other column is left, so add one with {target!r}{unlabelled * ('text_b' in mapping)}"
    has_tabs = len(header) == 1 and "\t" in header[0]
    hint = "the line holds tabs: set data.delimiter=tab; " if has_tabs else ""
    return (
        f"{hint}say which is which, as in data.columns={{{missing[0]}: NAME}}, "
        "or name the columns of a file without header, as in data.columns=[text,label]"
    )


def columns_of(mapping: ColumnMapping) -> list[str]:
    """Return every column that holds a field, or a part of one.

    >>> columns_of({"text": "t", "label": ("toxic", "obscene")})
    ['t', 'toxic', 'obscene']
    """
    return [name for names in mapping.values() for name in _as_tuple(names)]


class SpreadValue(dict[str, Any]):
    """The value of a field that is spread over several columns: value by column name."""


def field_value(record: Mapping[str, Any], names: str | tuple[str, ...]) -> Any:
    """Return the value of a field: that of its column, or a dict of values by column name."""
    if isinstance(names, str):
        return record.get(names)
    return SpreadValue({name: record.get(name) for name in names})


def describe_mapping(mapping: ColumnMapping) -> str:
    """Return one line that says which columns hold which field.

    >>> describe_mapping({"text": "t", "label": ("toxic", "obscene")})
    "text = column 't', label = columns 'toxic', 'obscene'"
    """
    return ", ".join(
        f"{field} = column {names!r}"
        if isinstance(names, str)
        else f"{field} = columns {', '.join(map(repr, names))}"
        for field, names in mapping.items()
    )


def _as_tuple(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _recognise(fields: Sequence[str], header: Sequence[str], columns: Columns) -> ColumnMapping:
    """Find the columns of fields by well-known names: texts first, the target last."""
    mapping: ColumnMapping = {}
    if "text" in fields:
        mapping.update(match_text_columns(header, columns, pair="text_b" in fields))
    aliases = {field: names for field, names in OTHER_ALIASES.items() if field in fields}
    if columns.target in fields:
        aliases[columns.target] = (*columns.target_aliases, *TARGET_ALIASES)
    for field, names in aliases.items():
        taken = columns_of(mapping)
        rest = [column for column in header if column not in taken]
        column = _first_match(names, rest)
        if field == "negative" and field in columns.spreadable:
            several = tuple(column for column in rest if is_negative_name(column))
            if several:
                mapping[field] = several[0] if len(several) == 1 else several
        elif column:
            mapping[field] = column
    return mapping


def is_negative_name(column: str) -> bool:
    """Tell whether a column has the name of negatives, perhaps with a number.

    >>> is_negative_name("negative_2"), is_negative_name("neg_scores")
    (True, False)
    """
    name = normalize_name(column)
    return name in OTHER_ALIASES["negative"] or _NUMBERED_NEGATIVE.fullmatch(name) is not None


def _refuse_ambiguous(recognised: ColumnMapping, header: Sequence[str], source: str) -> None:
    """Refuse two columns whose names are equal apart from case, blanks, "_" and "-".

    Raises:
        DataError: the two columns, and how to choose one.
    """
    for field, column in ((field, name) for field, names in recognised.items() for name in _as_tuple(names)):
        alike = [other for other in header if normalize_name(other) == normalize_name(column)]
        if len(alike) > 1:
            both = " and ".join(map(repr, alike))
            raise DataError(
                f"{source}: columns {both} could both be {field!r}; say which, as in "
                f"data.columns={{{field}: NAME}}"
            )


def match_text_columns(header: Sequence[str], columns: Columns, *, pair: bool = False) -> ColumnMapping:
    """Find the column of the text, or those of both texts of a pair, by well-known names."""
    text = _first_match((*columns.text_aliases, *TEXT_ALIASES), header)
    if pair:
        loose = LOOSE_PAIRS if columns.pair_aliases and not text else ()
        found = _first_pair((*PAIR_ALIASES, *columns.pair_aliases, *loose), header)
        if found:
            return {"text": found[0], "text_b": found[1]}
    return {"text": text} if text else {}


def _first_pair(pairs: Sequence[tuple[str, str]], header: Sequence[str]) -> tuple[str, str] | None:
    """Return the columns of the first pair of names that the header has both of."""
    names = {normalize_name(column): column for column in header}
    return next(((names[a], names[b]) for a, b in pairs if a in names and b in names), None)


def unread_pair(header: Sequence[str], mapping: ColumnMapping, columns: Columns) -> tuple[str, str] | None:
    """Return two columns that may belong together where the task reads one of them as its only text.

    A question is a text of its own to a classifier. Whoever wants both read must say so.
    """
    if "text_b" in mapping or "text_b" not in columns.optional or columns.pair_aliases:
        return None
    free = [column for column in header if column not in columns_of(mapping) or column == mapping["text"]]
    pair = _first_pair(RELATED_PAIRS, free)
    return pair if pair and mapping.get("text") in pair else None


def _first_match(aliases: Sequence[str], header: Sequence[str]) -> str | None:
    """Return the column of the first alias that the header has."""
    names = {normalize_name(column): column for column in header}
    return next((names[alias] for alias in aliases if alias in names), None)
