"""A field may be spread over several columns, where the task allows it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from bertune.config.schema import DataConfig
from bertune.data.records import BadRows, ReadOptions
from bertune.data.rows import open_rows
from bertune.errors import ConfigError, DataError
from bertune.types import Columns, Row

SPREADABLE = Columns(("text",), ("text_b",), "label", spreadable=("label",))
COMMENTS = "t,toxic,obscene,id\nbad dog,1,0,7\nbad car,0,1,8\n"


def read(tmp_path: Path, columns: dict[str, object], fields: Columns = SPREADABLE) -> tuple[list[Row], str]:
    """The rows of COMMENTS, and the line that describes its columns."""
    (tmp_path / "comments.csv").write_text(COMMENTS)
    settings = DataConfig(columns=columns)
    reader = open_rows(
        ReadOptions(str(tmp_path / "comments.csv"), settings, fields, BadRows(), lambda line: None)
    )
    return list(reader), reader.describe()


def test_a_spread_field_is_a_value_by_column(tmp_path: Path) -> None:
    rows, line = read(tmp_path, {"text": "t", "label": ["toxic", "obscene"]})
    assert [row.fields for row in rows] == [
        {"text": "bad dog", "label": {"toxic": "1", "obscene": "0"}},
        {"text": "bad car", "label": {"toxic": "0", "obscene": "1"}},
    ]
    assert line.endswith("text = column 't', label = columns 'toxic', 'obscene'; not used: 'id'")


def test_a_field_of_one_column_is_not_spread(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'text' is one column, got 2: 't', 'id'"):
        read(tmp_path, {"text": ["t", "id"]})


def test_each_column_of_a_spread_field_must_exist(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column 'insult' for 'label'"):
        read(tmp_path, {"text": "t", "label": ["toxic", "insult"]})


@pytest.mark.parametrize(
    ("columns", "advice"),
    [
        ({"text:query": None}, "write a blank after the colon: {text: query}"),
        ({"text": None}, "'text' has no column; write {text: NAME}"),
        ({"label": []}, "'label' has no column; write {label: NAME}"),
        ({"label": ["toxic", "toxic"]}, "names 'toxic' twice"),
    ],
)
def test_slips_in_data_columns_name_the_cause(columns: dict[str, object], advice: str) -> None:
    with pytest.raises(ValidationError) as caught:
        DataConfig(columns=columns)
    assert advice in str(caught.value)


def test_a_file_without_a_column_for_the_label_gets_advice_that_works(tmp_path: Path) -> None:
    (tmp_path / "qa.csv").write_text("question,answer\nHow?,So.\n")
    options = ReadOptions(
        str(tmp_path / "qa.csv"),
        DataConfig(columns={"text": "question", "text_b": "answer"}),
        Columns(("text", "text_b"), (), "label"),
        BadRows(),
        lambda line: None,
    )
    with pytest.raises(DataError) as caught:
        open_rows(options)
    message = str(caught.value)
    assert "no column for 'label'" in message
    assert "no other column is left, so add one with 'label'; task embed learns" in message
    assert "NAME" not in message
