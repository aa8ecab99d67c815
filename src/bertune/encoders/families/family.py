"""A family of encoders: BERT's block under names, settings and defaults of its own. Loads no torch.

To add a family, write one module beside this one with a `Family` in it, and name it in `registry.py`. What
data cannot express is a method of a subclass: see `chinesebert.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from bertune.types import JSON

if TYPE_CHECKING:
    from bertune.encoders.bert import Bert
    from bertune.encoders.families.glyphs import GlyphOptions
    from bertune.encoders.pretrained import PretrainedFolder
    from bertune.text.load import TokenizerKind

Activation = Literal["tanh", "gelu", "relu"]

BERT_DROPOUT_KEYS = ("classifier_dropout", "hidden_dropout_prob")
"""Where config.json states the dropout of a head in BERT and in most families after it."""


@dataclass(frozen=True)
class HeadSpec:
    """[dropout ->] dense -> activation -> dropout -> out, on the first token of a row."""

    dense: str
    """Name of the hidden layer in a saved checkpoint."""
    out: str
    """Name of the last layer in a saved checkpoint."""
    activation: Activation
    dropout_before_dense: bool
    """Whether there is dropout before the hidden layer too."""
    dropout_keys: tuple[str, ...]
    """Names in config.json that state the dropout; the first one that is there wins."""
    hf_class: str
    """The class that opens the saved folder, for `architectures` in config.json."""
    pretrained_pooler: str | None = None
    """Where the encoder keeps a pretrained hidden layer."""


def bert_head(prefix: str, class_prefix: str) -> HeadSpec:
    """Return BERT's head: its hidden layer is the pretrained pooler of the encoder."""
    hf_class = f"{class_prefix}ForSequenceClassification"
    return HeadSpec(
        f"{prefix}.pooler.dense", "classifier", "tanh", False, BERT_DROPOUT_KEYS, hf_class, "pooler.dense"
    )


def roberta_head(class_prefix: str, activation: Activation = "tanh") -> HeadSpec:
    """Return RoBERTa's head: its hidden layer is new and has dropout before it."""
    hf_class = f"{class_prefix}ForSequenceClassification"
    return HeadSpec("classifier.dense", "classifier.out_proj", activation, True, BERT_DROPOUT_KEYS, hf_class)


@dataclass(frozen=True)
class MaskedLMSpec:
    """dense -> activation -> norm -> decoder, which is the word table and a bias, on each masked token."""

    dense: str
    """Name of the hidden layer in a checkpoint."""
    norm: str
    """Name of its layer norm."""
    bias: str
    """Name of the decoder's bias, a number for each token of the vocabulary."""
    decoder: str
    """Name of the decoder; its weight is the word table, and its bias is `bias` once more."""
    hf_class: str
    """The class that opens the saved folder, for `architectures` in config.json."""
    activation: str = ""
    """The activation where it is written into the family's code; "" where config.json has it."""
    activation_key: str = "hidden_act"
    """Its name in config.json."""
    norm_eps_key: str = "layer_norm_eps"
    """The name of the norm's epsilon in config.json; "" where it is always 1e-12."""
    bias_keys: Mapping[str, str] = field(default_factory=dict)
    """Where config.json says whether `dense`, `norm` and `decoder` have a bias; without a word they do."""
    has_pooler: bool = False
    """Whether the class has the encoder's pooler too."""


def bert_masked_lm(class_prefix: str, *, has_pooler: bool = False) -> MaskedLMSpec:
    """Return the names of BERT's head for masked tokens."""
    return MaskedLMSpec(
        "cls.predictions.transform.dense",
        "cls.predictions.transform.LayerNorm",
        "cls.predictions.bias",
        "cls.predictions.decoder",
        f"{class_prefix}ForMaskedLM",
        has_pooler=has_pooler,
    )


def roberta_masked_lm(class_prefix: str) -> MaskedLMSpec:
    """Return the names of RoBERTa's head for masked tokens. Its activation is always GELU."""
    return MaskedLMSpec(
        "lm_head.dense",
        "lm_head.layer_norm",
        "lm_head.bias",
        "lm_head.decoder",
        f"{class_prefix}ForMaskedLM",
        activation="gelu",
    )


BERT_DEFAULTS: Mapping[str, Any] = {
    "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3072, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1, "max_position_embeddings": 512, "type_vocab_size": 2,
    "initializer_range": 0.02, "layer_norm_eps": 1e-12, "pad_token_id": 0,
}  # fmt: skip
BERT_EMBEDDING_NAMES: Mapping[str, str] = {
    "word_embeddings": "embeddings.word_embeddings",
    "position_embeddings": "embeddings.position_embeddings",
    "token_type_embeddings": "embeddings.token_type_embeddings",
    "task_type_embeddings": "embeddings.task_type_embeddings",
    "norm": "embeddings.LayerNorm",
    "projection": "embeddings_project",
}
BERT_LAYER_NAMES: Mapping[str, str] = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
    "output_norm": "output.LayerNorm",
}


def no_overrides(settings: JSON) -> JSON:  # noqa: ARG001  (the signature of `Family.overrides`)
    """Return nothing: BERT's own reading of the settings holds."""
    return {}


@dataclass(frozen=True)
class Family:
    """Names, settings and defaults of an architecture that `bertune.encoders.bert.Bert` computes.

    Names are the parameter names of transformers; tests compare them, the defaults, the states and the logits
    with transformers. Source: `modeling_*.py` and `configuration_*.py` of transformers 5.23.
    """

    base_model_prefix: str
    """What comes before the encoder's names in a checkpoint with a head."""
    hf_class: str
    """The class that opens the encoder alone."""
    head: HeadSpec
    """The family's own head for one label per row."""
    masked_lm: MaskedLMSpec | None = None
    """The family's own head for masked tokens; None where it has none."""
    token_dropout_keys: tuple[str, ...] = BERT_DROPOUT_KEYS
    """Names in config.json that state the dropout of the head for tokens, which is a layer `classifier`."""

    defaults: Mapping[str, Any] = field(default_factory=lambda: BERT_DEFAULTS)
    """The values of settings that config.json leaves out."""
    attribute_map: Mapping[str, str] = field(default_factory=dict)
    """BERT's names of settings to this family's, where they differ."""
    overrides: Callable[[JSON], JSON] = no_overrides
    """Settings with defaults filled in, to fields of `BertConfig` that are not what BERT reads from them."""
    constants: tuple[str, ...] = ()
    """Settings of BERT that are written into the family's code, whatever config.json says."""
    positions_after_padding: bool = False
    """Whether the first position is `pad_token_id` + 1 instead of 0."""

    embedding_names: Mapping[str, str] = field(default_factory=lambda: BERT_EMBEDDING_NAMES)
    """bertune's names of what comes before the layers, to the family's."""
    layers_name: str = "encoder.layer"
    """The name of the list of layers."""
    layer_names: Mapping[str, str] = field(default_factory=lambda: BERT_LAYER_NAMES)
    """bertune's names inside a layer, to the family's."""

    tokenizer_kind: TokenizerKind = "plain"
    """Which tokenizer of `bertune.text.load` the family needs."""
    is_packable: bool = True
    """Whether `auto.py` may replace the attention of transformers' own model by bertune's."""
    has_glyphs: bool = False
    """Whether tokens have pictures, so that `train.glyphs` and `train.glyph_font` mean something."""
    bertune_only_reason: str = ""
    """Why no other tool opens a saved folder; empty where transformers has the family."""

    def recognizes(self, config: JSON, folder: PretrainedFolder) -> bool:
        """Tell whether a folder holds this family although its config.json gives another `model_type`.

        Args:
            config: config.json as it is in the folder.
            folder: for its files and names of weights; its `config` is not known yet.
        """
        return False

    def encoder_class(self) -> type[Bert] | None:
        """Return the encoder's class where it is not `Bert` itself."""
        return None

    def after_load(
        self, encoder: Bert, missing_keys: list[str], folder: PretrainedFolder, glyphs: GlyphOptions
    ) -> list[str]:
        """Complete an encoder whose weights have been read, and return notes for the user.

        Args:
            encoder: the weights that the checkpoint lacks have been drawn.
            missing_keys: the encoder's names of these; what this hook fills is to be removed from the list.
            folder: where the weights come from.
            glyphs: what the run wants of pictures of tokens.
        """
        return []

    def add_to_report(self, report: JSON, folder: PretrainedFolder) -> None:
        """Add what is the family's own to a report of `bertune.encoders.checkpoint_report`."""

    def format_report(self, report: JSON) -> list[str]:
        """Return the lines of what `add_to_report` added."""
        return []

    @property
    def setting_names(self) -> frozenset[str]:
        """Return the settings of config.json that the encoder reads, or whose value `registry` looks at."""
        names = (*self.defaults, *self.attribute_map, *self.constants)
        return frozenset({*names, "is_decoder", "add_cross_attention"})

    @property
    def word_table(self) -> str:
        """Return the name of the table of word vectors inside the encoder."""
        return f"{self.embedding_names['word_embeddings']}.weight"

    def find_prefix(self, names: Iterable[str]) -> str | None:
        """Return what comes before the encoder's names in a checkpoint; None without the word table."""
        found = set(names)
        prefixes = (f"{self.base_model_prefix}.", "")
        return next((prefix for prefix in prefixes if f"{prefix}{self.word_table}" in found), None)

    def inner_names(self, names: Iterable[str]) -> dict[str, str]:
        """Return names inside the encoder to names in a checkpoint. TensorFlow's have gamma and beta."""
        names = list(names)
        prefix = self.find_prefix(names) or ""
        return {modern_name(name.removeprefix(prefix)): name for name in names}


def modern_name(name: str) -> str:
    """Return the name of a weight with `weight` and `bias` where TensorFlow has gamma and beta."""
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
