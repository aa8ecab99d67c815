"""What a smaller vocabulary changes: tokens, vectors and scores of texts that were held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bertune.artifact.read import read_artifact
from bertune.artifact.sentence_transformers import is_sentence_transformers_folder
from bertune.commands.compare import compare
from bertune.commands.trim_texts import Text, encode_texts
from bertune.console import Console
from bertune.data.dataset import EncodedDataset
from bertune.encoders.load import load_encoder
from bertune.encoders.pretrained import PretrainedFolder
from bertune.inference.sentence_pipeline import SentencePipeline
from bertune.kernels.precision import choose_device, choose_precision
from bertune.kernels.ragged_ops import mean_pooling
from bertune.text.tokenizer import Tokenizer
from bertune.types import JSON, EncodedExample, Encoding, Numerics

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

MAX_VECTORS = 1000
"""Texts whose vectors are compared."""
_BATCH_TOKENS = 4096


@dataclass(frozen=True)
class TokenChange:
    """How the tokens of texts differ."""

    texts: int
    changed: int
    """Texts with other tokens than before."""
    tokens_before: int
    tokens_after: int
    unknown_before: int
    unknown_after: int


@dataclass(frozen=True)
class VectorChange:
    """Cosines between the vectors of texts before and after."""

    texts: int
    what: str
    """Which vectors."""
    mean: float
    percentile_1: float
    percentile_5: float
    lowest: float


@dataclass(frozen=True)
class ScoreChange:
    """Scores of a trained model on the same rows before and after."""

    metric: str
    before: float
    after: float
    difference: float
    interval: tuple[float, float] | None
    """95 %, of the difference."""
    rows: int
    disagreements: int | None
    """Rows that are predicted otherwise; None where a prediction is a number."""


@dataclass(frozen=True)
class Effect:
    """What a smaller vocabulary changes."""

    source: str
    """Where the texts come from."""
    tokens: TokenChange
    vectors: VectorChange
    scores: ScoreChange | None

    def to_json(self) -> JSON:
        """Return the figures as JSON values."""
        return asdict(self)


def compare_tokens(
    before: Sequence[Encoding], after: Sequence[Encoding], old_ids: IntArray, unk_id: int | None
) -> TokenChange:
    """Compare the tokens of texts.

    Args:
        before: tokens of each text by the whole vocabulary.
        after: by the smaller one.
        old_ids: (V,) the old id of each new one.
        unk_id: the old id of the unknown token.
    """
    old = [np.asarray(encoding.input_ids, np.int64) for encoding in before]
    new = [old_ids[np.asarray(encoding.input_ids, np.int64)] for encoding in after]

    def unknown(texts: Sequence[IntArray]) -> int:
        return 0 if unk_id is None else int(sum(np.count_nonzero(ids == unk_id) for ids in texts))

    return TokenChange(
        len(old),
        sum(not np.array_equal(a, b) for a, b in zip(old, new, strict=True)),
        sum(map(len, old)),
        sum(map(len, new)),
        unknown(old),
        unknown(new),
    )


@dataclass(frozen=True)
class Measure:
    """How vectors and scores are computed."""

    device: str
    precision: str
    task_file: str | None
    console: Console

    def vectors(self, before: Path, after: Path, texts: Sequence[Text]) -> VectorChange:
        """Compare the vectors that two folders give to texts, to some of them where there are many."""
        chosen = [texts[i] for i in np.linspace(0, len(texts) - 1, min(MAX_VECTORS, len(texts))).astype(int)]
        (old, what), (new, _) = (self._embed(folder, chosen) for folder in (before, after))
        lengths = np.linalg.norm(old, axis=1) * np.linalg.norm(new, axis=1)
        cosines = (old * new).sum(1) / np.maximum(lengths, 1e-12)
        low, fifth = (float(np.percentile(cosines, share)) for share in (1, 5))
        return VectorChange(len(chosen), what, float(cosines.mean()), low, fifth, float(cosines.min()))

    def _embed(self, folder: Path, texts: Sequence[Text]) -> tuple[FloatArray, str]:
        """Return a vector for each text, and which vectors these are."""
        if (folder / "bertune.json").is_file() or is_sentence_transformers_folder(folder):
            artifact = read_artifact(folder, self.task_file, note=lambda _: None)
            if artifact.model.embedding_dim:
                pipeline = artifact.pipeline(self.device, self.precision)
                if isinstance(pipeline, SentencePipeline):
                    return np.asarray(pipeline.encode([t.text for t in texts])), "vectors of the model"
            return self._mean_states(artifact.model.encoder, artifact.tokenizer, texts)
        pretrained = PretrainedFolder(folder)
        encoder, _ = load_encoder(pretrained)
        return self._mean_states(
            encoder, pretrained.load_tokenizer(max_positions=encoder.max_positions), texts
        )

    def _mean_states(
        self, encoder: Any, tokenizer: Tokenizer, texts: Sequence[Text]
    ) -> tuple[FloatArray, str]:
        device = choose_device(self.device)
        encoder.to(device).eval()
        encoder.set_numerics(Numerics(choose_precision(self.precision, device)[0]))
        plain = [Text(text.text) for text in texts]
        dataset = EncodedDataset([EncodedExample((e,)) for e in encode_texts(tokenizer, plain)])
        order = np.argsort(dataset.lengths, kind="stable")
        per_batch = np.cumsum(dataset.lengths[order]) // _BATCH_TOKENS
        vectors: FloatArray | None = None
        with torch.inference_mode():
            for part in np.split(order, np.flatnonzero(np.diff(per_batch)) + 1):
                ragged = dataset.gather_texts(part.tolist()).to(device)
                pooled = mean_pooling(encoder(ragged).float(), ragged).cpu().numpy()
                vectors = np.zeros((len(texts), pooled.shape[1]), np.float32) if vectors is None else vectors
                vectors[part] = pooled
        return (np.zeros((0, 1), np.float32) if vectors is None else vectors), "mean of the last layer"

    def scores(self, before: Path, after: Path, file: str, overrides: Sequence[str]) -> ScoreChange:
        """Score two folders on a file with targets.

        Raises:
            BertuneError: the file has no targets, or a row cannot be used.
        """
        result = compare(
            [before, after],
            file,
            overrides,
            device=self.device,
            precision=self.precision,
            task=self.task_file,
        )
        pair, (old, new) = result.pairs[0], result.models
        return ScoreChange(
            result.metric,
            old.scores.main_value,
            new.scores.main_value,
            pair.main.difference,
            pair.main.interval,
            result.num_rows,
            None if pair.mcnemar is None else pair.num_disagreements,
        )
