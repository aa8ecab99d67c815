"""Data sets of ModelScope, by a package of the same form: the network is not asked."""

from __future__ import annotations

import sys
import types

import pytest
from tests.data.reading import Read, refused

from bertune.errors import MissingExtra

datasets = pytest.importorskip("datasets")


@pytest.fixture
def modelscope(monkeypatch):
    """A package that holds one data set, clue/tnews, and remembers how it was asked."""
    calls: list[tuple] = []
    features = datasets.Features(
        {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["100", "101"])}
    )

    class MsDataset:
        def __init__(self, split: str) -> None:
            self.split = split

        @staticmethod
        def load(name: str, subset_name: str = "default", split: str = "train") -> MsDataset:
            calls.append((name, subset_name, split))
            if (name, subset_name) != ("clue", "tnews"):
                raise KeyError(f"no data set {name}")
            return MsDataset(split)

        def to_hf_dataset(self):
            label = -1 if self.split == "test" else 1
            return datasets.Dataset.from_dict(
                {"sentence": ["好", "坏"], "label": [0, label]}, features=features
            )

    package, inner = types.ModuleType("modelscope"), types.ModuleType("modelscope.msdatasets")
    inner.MsDataset = MsDataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "modelscope", package)
    monkeypatch.setitem(sys.modules, "modelscope.msdatasets", inner)
    return calls


def test_a_data_set_of_modelscope_with_the_names_of_its_labels(modelscope):
    read = Read("modelscope:clue/tnews:validation")
    assert read.fields == [{"text": "好", "label": "100"}, {"text": "坏", "label": "101"}]
    assert modelscope[-1] == ("clue", "tnews", "validation")
    assert str(read.rows[1].location) == "modelscope:clue/tnews:validation:2"


def test_a_label_of_minus_one_is_none(modelscope):
    assert [f["label"] for f in Read("modelscope:clue/tnews:test").fields] == ["100", None]


def test_the_training_rows_where_no_split_is_named(modelscope):
    Read("modelscope:clue/tnews")
    assert modelscope[-1][-1] == "train"


def test_what_cannot_be_loaded_names_the_cause_of_the_first_try(modelscope):
    message = refused("modelscope:owner/nothing")
    assert message.startswith("modelscope:owner/nothing: cannot be loaded from ModelScope: KeyError: ")
    assert "owner/nothing" in message.split("KeyError")[1]


def test_without_the_package_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "modelscope", None)
    monkeypatch.setitem(sys.modules, "modelscope.msdatasets", None)
    with pytest.raises(MissingExtra, match=r"pip install 'bertune\[modelscope\]'"):
        Read("modelscope:clue/tnews")
