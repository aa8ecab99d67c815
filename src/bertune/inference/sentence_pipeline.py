"""A finished model as a function from texts to vectors, with the method names of sentence-transformers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from bertune.data.dataset import EncodedDataset, TokenCounts
from bertune.data.labels import check_surrogates
from bertune.errors import ConfigError, DataError, did_you_mean
from bertune.files import sha256_of_json
from bertune.heads.model import Model
from bertune.inference.fingerprint import model_fingerprint
from bertune.inference.pipeline import Pipeline
from bertune.inference.predict import embed_texts
from bertune.inference.vectors import FloatArray, VectorDtype, quantize_vectors
from bertune.losses.similarity import pairwise_similarity, similarity_matrix
from bertune.metrics.similarity import Similarity, l2_normalize
from bertune.tasks.base.sentence import SEARCH_PROMPT_NAMES, SentenceTask
from bertune.types import EncodedExample, Example, Location, Prediction, Row


@dataclass
class SentencePipeline(Pipeline):
    """A finished model of sentence vectors.

    Attributes:
        prompts: texts to put before a text, by name.
        default_prompt_name: the prompt that is used when a call names none.
        truncate_dim: how many features of a vector are kept when a call does not say.
        token_counts: of the texts of the last call, how many were truncated, and how many tokens the
            vocabulary lacks.
    """

    task: SentenceTask
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    truncate_dim: int | None = None
    token_counts: TokenCounts = field(default_factory=TokenCounts)

    def encode(  # noqa: PLR0913  (the arguments of sentence-transformers)
        self,
        sentences: str | Sequence[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        *,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        precision: VectorDtype = "float32",
        convert_to_tensor: bool = False,
        convert_to_numpy: bool = True,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
    ) -> Any:
        """Return a vector for each text, in the order of the texts; for one text alone, one vector.

        Args:
            sentences: one text, or several.
            prompt_name: the name of the prompt to put before each text.
            prompt: the text to put before each text.
            normalize_embeddings: give vectors length 1.
            truncate_dim: how many features to keep, for models trained for that (`options.matryoshka`).
            precision: see `bertune.inference.vectors.quantize_vectors`; int8 and binary keep the direction of
                a vector.
            convert_to_tensor: return a tensor instead of an array.
            convert_to_numpy: without effect, like the next two: for calls written for sentence-transformers.
            batch_size: without effect.
            show_progress_bar: without effect.

        Returns:
            (n, E), or (E,) for one text.

        Raises:
            DataError: a text is empty, or is not a text.
            ConfigError: the model has no such prompt, or vectors are narrower than `truncate_dim`.
        """
        truncate_dim = self.truncate_dim if truncate_dim is None else truncate_dim
        refuse_truncation(self.model, truncate_dim)
        texts = [sentences] if isinstance(sentences, str) else list(sentences)
        for number, text in enumerate(texts, 1):
            if not isinstance(text, str) or not text.strip():
                raise DataError(f"texts:{number}: expected a text that is not empty, got {text!r}")
            check_surrogates(text, Row({}, Location("texts", number)), "text")
        prefix = self.resolve_prompt(prompt_name, prompt)
        vectors = truncate_vectors(
            self.embed_texts([prefix + text for text in texts]),
            truncate_dim,
            normalize_embeddings,
        )
        stored = quantize_vectors(vectors, precision)
        result = torch.from_numpy(stored) if convert_to_tensor else stored
        return result[0] if isinstance(sentences, str) else result

    def encode_query(  # noqa: PLR0913  (the arguments of sentence-transformers)
        self,
        sentences: str | Sequence[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        *,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        precision: VectorDtype = "float32",
        convert_to_tensor: bool = False,
        convert_to_numpy: bool = True,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
    ) -> Any:
        """Return vectors of queries: `encode` with the prompt `query`, where the model has one."""
        return self.encode(
            sentences,
            prompt_name or self.query_prompt_name,
            prompt,
            normalize_embeddings=normalize_embeddings,
            truncate_dim=truncate_dim,
            precision=precision,
            convert_to_tensor=convert_to_tensor,
            convert_to_numpy=convert_to_numpy,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
        )

    def encode_document(  # noqa: PLR0913  (the arguments of sentence-transformers)
        self,
        sentences: str | Sequence[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        *,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        precision: VectorDtype = "float32",
        convert_to_tensor: bool = False,
        convert_to_numpy: bool = True,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
    ) -> Any:
        """Return vectors of documents.

        They are those of `encode` with the prompt `document`, `passage` or `corpus`, where the model has one.
        """
        return self.encode(
            sentences,
            prompt_name or self.document_prompt_name,
            prompt,
            normalize_embeddings=normalize_embeddings,
            truncate_dim=truncate_dim,
            precision=precision,
            convert_to_tensor=convert_to_tensor,
            convert_to_numpy=convert_to_numpy,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
        )

    @property
    def query_prompt_name(self) -> str | None:
        """Return the name of the prompt that queries get, if there is one."""
        return self._first_prompt_of(*SEARCH_PROMPT_NAMES[0])

    @property
    def document_prompt_name(self) -> str | None:
        """Return the name of the prompt that documents get, if there is one."""
        return self._first_prompt_of(*SEARCH_PROMPT_NAMES[1])

    def search_prompts(self) -> tuple[str, str]:
        """Return what `encode_query` puts before a query, and `encode_document` before a document."""
        query, document = (
            self.resolve_prompt(name, None) for name in (self.query_prompt_name, self.document_prompt_name)
        )
        return query, document

    def _first_prompt_of(self, *names: str) -> str | None:
        return next((name for name in names if name in self.prompts), None)

    def resolve_prompt(self, name: str | None, text: str | None) -> str:
        """Return the text to put before each text: the one given, the prompt named, or the default prompt.

        Raises:
            ConfigError: the model has no prompt of that name.
        """
        if text is not None:
            return text
        name = name or self.default_prompt_name
        if name is None:
            return ""
        if name not in self.prompts:
            raise ConfigError(
                f"prompt_name: no prompt {name!r}; this model has {', '.join(self.prompts) or 'none'}"
            )
        return self.prompts[name]

    def fingerprint(self) -> str:
        """Return a hash of the model: weights, architecture, head, tokenizer and `max_seq_length`.

        What a call may choose is not in it: prompt, width, length and precision of the vectors.
        """
        members = [self._member_fingerprint(member) for member in self.model.members]
        if len(members) == 1:
            return members[0]
        # the similarity too: it decides how long the vectors of each member are
        return sha256_of_json({"members": members, "similarity": self.task.similarity})

    def _member_fingerprint(self, model: Model) -> str:
        head: Any = model.head
        settings = [
            head.pooling,
            head.activations,
            head.normalize,
            self.task.options.do_lower_case,
            self.max_seq_length,
            *self.tokenizer.truncation_settings,
        ]
        return model_fingerprint(model, settings, self.tokenizer.fingerprint())

    def embed_texts(self, texts: Sequence[str]) -> FloatArray:
        """Return the vectors of texts (n, E), fp32, as the model gives them; equal texts are encoded once."""
        unique = {text: n for n, text in enumerate(dict.fromkeys(texts))}
        encodings = self.tokenizer.encode([self.task.preprocess_text(text) for text in unique])
        dataset = EncodedDataset([EncodedExample((encoding,)) for encoding in encodings])
        index = [unique[text] for text in texts]
        self.token_counts = dataset.count_tokens(self.tokenizer.unk_token_id, index)
        self.num_truncated_rows = self.token_counts.truncated_rows
        vectors: FloatArray = self.model.finish(embed_texts(self.model, dataset, self.device)).numpy()
        return vectors if len(unique) == len(texts) else vectors[index]

    @property
    def notes(self) -> list[str]:
        """Return what a user should know of the texts of the last call."""
        return self.token_counts.lines(self.tokenizer.max_length)

    def similarity(self, a: Any, b: Any) -> Any:
        """Return the similarity of every vector of `a` (n, E) with every one of `b` (m, E): a tensor (n, m).

        It is the model's own, see `similarity_fn_name`; distances are negative.
        """
        if self.task.similarity == "cosine":
            return _unit_vectors(a) @ _unit_vectors(b).T
        return similarity_matrix(_as_tensor(a), _as_tensor(b), self.task.similarity)

    def similarity_pairwise(self, a: Any, b: Any) -> Any:
        """Return the similarity of each vector of `a` (n, E) with its counterpart in `b`: a tensor (n,)."""
        if self.task.similarity == "cosine":
            return (_unit_vectors(a) * _unit_vectors(b)).sum(-1)
        return pairwise_similarity(_as_tensor(a), _as_tensor(b), self.task.similarity)

    @property
    def similarity_fn_name(self) -> Similarity:
        """Return how vectors are compared: cosine, dot, euclidean or manhattan."""
        return self.task.similarity

    @property
    def max_seq_length(self) -> int:
        """How many tokens of a text are read; it can be set.

        Raises:
            ConfigError: the encoder does not have so many positions, or special tokens alone need more.
        """
        return self.tokenizer.max_length

    @max_seq_length.setter
    def max_seq_length(self, tokens: int) -> None:
        least, most = 3, self.model.encoder.max_positions
        if not isinstance(tokens, int) or not least <= tokens <= most:
            raise ConfigError(f"max_seq_length: got {tokens!r}, must be from {least} to {most}")
        self.tokenizer.set_max_length(tokens)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a setting; refuse a name that looks like a slip of one, which would have no effect.

        Raises:
            AttributeError: there is no such setting, and another one has nearly this name.
        """
        known = ["max_seq_length", "prompts", "default_prompt_name", "truncate_dim"]
        hint = did_you_mean(name, known)
        if hint and name not in self.__dataclass_fields__ and not hasattr(type(self), name):
            raise AttributeError(f"{name!r} is no setting of a model of sentence vectors{hint}")
        super().__setattr__(name, value)

    def get_embedding_dimension(self) -> int:
        """Return the width E of the vectors."""
        return self.model.embedding_dim

    get_sentence_embedding_dimension = get_embedding_dimension

    def predict_stream(self, examples: Iterable[Example]) -> Iterator[Prediction]:
        """Predict pairs in their order.

        Raises:
            DataError: a row is a single text.
        """
        return super().predict_stream(map(_check_pair, examples))


def refuse_truncation(model: Model, truncate_dim: int | None) -> None:
    """Refuse to truncate the vectors of an ensemble.

    Raises:
        ConfigError: `truncate_dim` is given and the model is an ensemble.
    """
    if truncate_dim is not None and len(model.members) > 1:
        raise ConfigError(
            f"truncate_dim: {truncate_dim} is for the vectors of one model; an ensemble has those of "
            f"{len(model.members)} models side by side, {model.embedding_dim} features in all; leave it out, "
            "or give the folder of one member"
        )


def truncate_vectors(vectors: FloatArray, truncate_dim: int | None, normalize: bool) -> FloatArray:
    """Return the first `truncate_dim` features of vectors (n, E), then normalized if asked for.

    Raises:
        ConfigError: the vectors have fewer features.
    """
    if truncate_dim is not None:
        if not 1 <= truncate_dim <= vectors.shape[-1]:
            raise ConfigError(
                f"truncate_dim: {truncate_dim} is not from 1 to {vectors.shape[-1]}, the width of the vectors"
            )
        vectors = vectors[:, :truncate_dim]
    if normalize:
        vectors = l2_normalize(vectors)
    return vectors


def _check_pair(example: Example) -> Example:
    if len(example.texts) < 2:
        raise DataError(
            f"{example.location}: predict compares two texts, and this row has one; for vectors: "
            "bertune embed MODEL FILE"
        )
    return example


def _unit_vectors(vectors: Any) -> torch.Tensor:
    """Return vectors as a tensor (n, E) with length 1; torch rounds differently from `l2_normalize`."""
    return torch.nn.functional.normalize(_as_tensor(vectors), dim=-1)


def _as_tensor(vectors: Any) -> torch.Tensor:
    """Return vectors, or one vector, as a tensor (n, E)."""
    x = vectors if isinstance(vectors, torch.Tensor) else torch.from_numpy(np.asarray(vectors))
    return x.float().cpu().reshape(-1, x.shape[-1])
