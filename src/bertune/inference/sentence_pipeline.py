"""A finished model as a function from texts to vectors, under the names that sentence-transformers gave it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from bertune.data.dataset import EncodedDataset
from bertune.data.labels import check_surrogates
from bertune.errors import ConfigError, DataError
from bertune.inference.pipeline import Pipeline
from bertune.inference.predict import embed_texts
from bertune.inference.vectors import FloatArray, VectorDtype, quantize_vectors
from bertune.tasks.base.sentence import SentenceTask
from bertune.types import EncodedExample, Example, Location, Prediction, Row


@dataclass
class SentencePipeline(Pipeline):
    """A finished model of sentence vectors.

    Attributes:
        prompts: texts put before a text, by name.
        default_prompt_name: the one of them that is used when none is asked for.
        truncate_dim: how many features of a vector are kept, when nothing else is asked for.
        notes: what a user should know of the texts of the last call: how many were cut, whether the vocabulary knows them.
    """

    task: SentenceTask
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    truncate_dim: int | None = None
    notes: list[str] = field(default_factory=list)

    def encode(  # noqa: PLR0913  (their arguments)
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
            prompt_name: name of the prompt to put before each text.
            prompt: text to put before each text.
            normalize_embeddings: whether vectors have length 1.
            truncate_dim: how many features to keep, for models that have learnt that (`options.matryoshka`).
            precision: see `bertune.inference.vectors.quantize_vectors`; int8 and binary keep the direction of a vector.
            convert_to_tensor: whether to return a tensor instead of an array.
            convert_to_numpy: taken for the sake of calls written for sentence-transformers, as are the next two.
            batch_size: without effect.
            show_progress_bar: without effect.

        Returns:
            (n, E), or (E,) for one text.

        Raises:
            DataError: something is no text, or empty.
            ConfigError: there is no such prompt, or vectors have no such width.
        """
        alone = isinstance(sentences, str)
        texts = [sentences] if isinstance(sentences, str) else list(sentences)
        for place, text in enumerate(texts):
            if not isinstance(text, str) or not text.strip():
                raise DataError(f"texts:{place + 1}: expected a text that is not empty, got {text!r}")
            check_surrogates(text, Row({}, Location("texts", place + 1)), "text")
        before = self.resolve_prompt(prompt_name, prompt)
        vectors = truncate_vectors(
            self.embed_texts([before + text for text in texts]),
            self.truncate_dim if truncate_dim is None else truncate_dim,
            normalize_embeddings,
        )
        formed = quantize_vectors(vectors, precision)
        found = torch.from_numpy(formed) if convert_to_tensor else formed
        return found[0] if alone else found

    def encode_query(self, sentences: str | Sequence[str], **how: Any) -> Any:
        """Return vectors of queries: with the prompt `query`, where the model has one."""
        return self.encode(sentences, **{"prompt_name": self._first_of("query"), **how})

    def encode_document(self, sentences: str | Sequence[str], **how: Any) -> Any:
        """Return vectors of documents: with the prompt `document`, `passage` or `corpus`, where the model has one."""
        return self.encode(sentences, **{"prompt_name": self.document_prompt_name, **how})

    def _first_of(self, *names: str) -> str | None:
        return next((name for name in names if name in self.prompts), None)

    def resolve_prompt(self, name: str | None, text: str | None) -> str:
        """Return the prompt asked for, the default one, or nothing.

        Raises:
            ConfigError: there is no prompt of that name.
        """
        if text is not None:
            return text
        name = name or self.default_prompt_name
        if name is not None and name not in self.prompts:
            raise ConfigError(
                f"prompt_name: no prompt {name!r}; this model has {', '.join(self.prompts) or 'none'}"
            )
        return self.prompts[name] if name is not None else ""

    @property
    def document_prompt_name(self) -> str | None:
        """Return the name of the prompt that documents get, if there is one."""
        return self._first_of("document", "passage", "corpus")

    def fingerprint(self) -> str:
        """Return a hash of all that decides the vectors: weights, head, tokenizer, and most tokens of a text."""
        digest = hashlib.sha256()
        for name, weight in self.model.state_dict().items():
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(weight.detach().cpu().numpy()).data)
        head: Any = self.model.head
        settings = [
            head.pooling,
            head.activations,
            head.normalize,
            self.task.do_lower_case,
            self.max_seq_length,
        ]
        digest.update(json.dumps(settings).encode())
        digest.update(self.tokenizer.fingerprint().encode())
        return digest.hexdigest()

    def embed_texts(self, texts: Sequence[str]) -> FloatArray:
        """Return (n, E) in fp32, as the model gives them: each different text is encoded once."""
        different = {text: n for n, text in enumerate(dict.fromkeys(texts))}
        rows = EncodedDataset(self._encoded_texts(list(different)))
        self.num_truncated_rows = rows.num_truncated_rows
        self.notes = rows.diagnostics(self.tokenizer.unk_token_id, self.tokenizer.max_length)
        vectors: FloatArray = embed_texts(self.model, rows, self.device).numpy()
        return vectors if len(different) == len(texts) else vectors[[different[text] for text in texts]]

    def _encoded_texts(self, texts: list[str]) -> list[EncodedExample]:
        return [
            EncodedExample((piece,))
            for piece in self.tokenizer.encode([self.task.preprocess_text(text) for text in texts])
        ]

    def similarity(self, a: Any, b: Any) -> Any:
        """Return the cosine of every vector of `a` (n, E) with every one of `b` (m, E): (n, m), a tensor."""
        return _directions(a) @ _directions(b).T

    def similarity_pairwise(self, a: Any, b: Any) -> Any:
        """Return the cosine of each vector of `a` (n, E) with its counterpart in `b` (n, E): (n,), a tensor."""
        return (_directions(a) * _directions(b)).sum(-1)

    @property
    def max_seq_length(self) -> int:
        """Return how many tokens of a text are read."""
        return self.tokenizer.max_length

    def get_embedding_dimension(self) -> int:
        """Return the width of vectors."""
        return self.model.embedding_dim

    get_sentence_embedding_dimension = get_embedding_dimension

    def predict_stream(self, examples: Iterable[Example]) -> Iterator[Prediction]:
        """Predict pairs in their order.

        Raises:
            DataError: a row is a single text.
        """
        return super().predict_stream(map(_pair, examples))


def truncate_vectors(vectors: FloatArray, truncate_dim: int | None, normalize: bool) -> FloatArray:
    """Return the first features of vectors (n, E), and with length 1 where asked for.

    Raises:
        ConfigError: they have fewer.
    """
    if truncate_dim is not None:
        if not 1 <= truncate_dim <= vectors.shape[-1]:
            raise ConfigError(
                f"truncate_dim: {truncate_dim} is not from 1 to {vectors.shape[-1]}, the width of the vectors"
            )
        vectors = vectors[:, :truncate_dim]
    if normalize:
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    return vectors


def _pair(example: Example) -> Example:
    if len(example.texts) < 2:
        raise DataError(
            f"{example.location}: predict compares two texts, and this row has one; for vectors: bertune embed OUT FILE"
        )
    return example


def _directions(vectors: Any) -> torch.Tensor:
    x = vectors if isinstance(vectors, torch.Tensor) else torch.from_numpy(np.asarray(vectors))
    return torch.nn.functional.normalize(x.float().cpu().reshape(-1, x.shape[-1]), dim=-1)
