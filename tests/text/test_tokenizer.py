"""Token ids are those of transformers, whatever a folder holds, and what is cut is counted."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conftest import VOCABULARY, make_encoder

from bertune.config.schema import DataConfig
from bertune.errors import ConfigError
from bertune.text.load import load_tokenizer

TEXTS = [
    "The dog is GOOD!",
    "天很好 好",
    "dogs 42, cats?",
    "[SEP] in the text",
    "ＦＵＬＬ　width",
    "e\u0301 é ﬁ",
    "x" * 120,
    "a\u200bb\tc",
]


def theirs(folder, texts, pairs=None, **settings):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder))(texts, pairs, **settings)


@pytest.mark.parametrize("in_json", [True, False])
@pytest.mark.parametrize("in_config", [True, False, None])
def test_case_is_decided_as_in_transformers(in_json, in_config, tmp_path):
    folder = make_encoder(tmp_path / "e")
    rust = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    rust["normalizer"]["lowercase"] = in_json
    (folder / "tokenizer.json").write_text(json.dumps(rust), encoding="utf-8")
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    config.pop("do_lower_case", None)
    (folder / "tokenizer_config.json").write_text(
        json.dumps(config if in_config is None else {**config, "do_lower_case": in_config})
    )
    ours = load_tokenizer(folder, 64, DataConfig())
    expected = theirs(folder, TEXTS)["input_ids"]
    assert [p.input_ids for p in ours.encode([(t,) for t in TEXTS]) if not p.num_truncated] == [
        ids for ids in expected if len(ids) <= 64
    ]
    saved = tmp_path / "saved"
    saved.mkdir()
    ours.save(saved)
    (saved / "config.json").write_text((folder / "config.json").read_text())
    assert theirs(saved, TEXTS)["input_ids"] == expected
    (saved / "bertune.json").write_text("{}")  # how a saved folder of ours is read
    assert [p.input_ids for p in load_tokenizer(saved, 64, DataConfig()).encode([(t,) for t in TEXTS])] == [
        p.input_ids for p in ours.encode([(t,) for t in TEXTS])
    ]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(
        st.tuples(*[st.text(st.sampled_from("ab dog!天好 "), min_size=1, max_size=40)] * 2),
        min_size=1,
        max_size=4,
    ),
    length=st.integers(4, 30),
    strategy=st.sampled_from(["longest_first", "only_first", "only_second"]),
)
def test_pairs_are_cut_as_transformers_cuts(tiny, texts, length, strategy):
    ours = load_tokenizer(tiny, 64, DataConfig(max_length=length, truncation=strategy)).encode(texts)
    for (first, second), piece in zip(texts, ours, strict=True):
        whole = len(theirs(tiny, first, second)["input_ids"])
        assert len(piece.input_ids) == len(piece.token_type_ids) == min(whole, length)
        assert piece.num_truncated == max(0, whole - length)
        rest = whole - len(theirs(tiny, first if strategy == "only_first" else second)["input_ids"]) + 2
        if strategy == "longest_first" or rest < length - 1:
            expected = theirs(tiny, first, second, truncation=strategy, max_length=length)
            assert list(piece.input_ids) == expected["input_ids"]
            assert list(piece.token_type_ids) == expected["token_type_ids"]


def test_words_of_a_piece(tiny):
    tokenizer = load_tokenizer(tiny, 64, DataConfig())
    (piece,) = tokenizer.encode([("the dogs",)])
    assert tokenizer.convert_ids_to_tokens(piece.input_ids) == ["[CLS]", "the", "dog", "##s", "[SEP]"]
    assert tokenizer.decode(piece.input_ids) == "[CLS] the dogs [SEP]"
    assert tokenizer.unk_token_id == VOCABULARY.index("[UNK]")


def test_a_folder_without_tokenizer_is_named(tmp_path):
    folder = make_encoder(tmp_path / "e")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(ConfigError, match="no tokenizer can be read"):
        load_tokenizer(folder, 64, DataConfig())


def test_a_tokenizer_of_another_encoder_is_refused(tmp_path, write):
    import bertune

    folder = make_encoder(tmp_path / "e", vocab_size=40)
    with pytest.raises(ConfigError, match=r"has \d+ tokens, its encoder only 40"):
        bertune.train(
            "classify",
            [
                f"data.train={write('t.csv', 'text,label' + chr(10) + 'a,x' + chr(10) + 'b,y' + chr(10))}",
                f"model={folder}",
            ],
            quiet=True,
        )


@pytest.mark.parametrize(
    "settings", [{}, {"do_lower_case": False}, {"strip_accents": False}, {"tokenize_chinese_chars": False}]
)
@pytest.mark.parametrize("agree", [True, False])
def test_a_bert_tokenizer_is_what_transformers_makes_of_it(tmp_path, settings, agree):
    """Read directly where tokenizer.json and tokenizer_config.json agree, else by rules of transformers."""
    import json

    from transformers import AutoTokenizer, BertTokenizer

    from bertune.text.tokenizer_files import _read_bert_tokenizer

    folder = make_encoder(tmp_path / "e")
    BertTokenizer.from_pretrained(str(folder), **settings).save_pretrained(folder)
    if not agree:
        config = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(
            json.dumps({**config, "do_lower_case": settings.get("do_lower_case") is False})
        )
    assert (_read_bert_tokenizer(folder) is not None) == agree
    ours, theirs = load_tokenizer(folder, 64, DataConfig()), AutoTokenizer.from_pretrained(str(folder))
    for text in ("The DOG is good, naïve 大人 [MASK] x9", "É\u200b\x00é", " a\tb\n"):
        (piece,) = ours.encode([(text,)])
        assert list(piece.input_ids) == theirs(text)["input_ids"]
        (pair,) = ours.encode([(text, "a dog")])
        assert list(pair.token_type_ids) == theirs(text, "a dog")["token_type_ids"]


def test_what_the_settings_do_not_tell_is_left_to_transformers(tmp_path):
    import json

    from bertune.text.tokenizer_files import _read_bert_tokenizer

    folder = make_encoder(tmp_path / "e")
    made, said = (
        json.loads((folder / name).read_text()) for name in ("tokenizer.json", "tokenizer_config.json")
    )
    assert _read_bert_tokenizer(folder) is not None
    for name, changed in (
        ("tokenizer.json", {**made, "added_tokens": made["added_tokens"][:-1]}),
        ("tokenizer.json", {**made, "normalizer": {**made["normalizer"], "clean_text": False}}),
        ("tokenizer_config.json", {**said, "tokenizer_class": "RobertaTokenizer"}),
        ("tokenizer_config.json", {**said, "additional_special_tokens": ["[X]"]}),
        ("tokenizer_config.json", {**said, "sep_token": "[UNK]"}),
    ):
        (folder / "tokenizer.json").write_text(json.dumps(made))
        (folder / "tokenizer_config.json").write_text(json.dumps(said))
        (folder / name).write_text(json.dumps(changed))
        assert _read_bert_tokenizer(folder) is None, changed
