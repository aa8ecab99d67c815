"""The texts of a batch among which each text must find those that belong to it, over all processes.

Letters: `B` rows, `S` texts of a row besides the first, `P` pairs of a first text and one that belongs to it,
`N` candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from bertune.heads.sentence import SentenceOutput
    from bertune.types import PairIndex


@dataclass(frozen=True)
class Candidates:
    """Pairs and candidates. Each process has all of them, those of the first process first.

    A row with several texts that belong to it is as many pairs. A candidate is a place of a row: N = B * S.
    """

    first: Tensor
    """(B of this process,) the first text of each row, as a number within the batch."""
    others: Tensor
    """(N of this process,) the text of each candidate; any one where a row has no text at this place."""
    row: Tensor
    """(P,) the row of each pair."""
    positive: Tensor
    """(P,) the candidate of each pair."""
    row_ids: Tensor
    """(B,) the text id of each first text."""
    candidate_ids: Tensor
    """(N,) the text id of each candidate."""
    absent: Tensor
    """(N,) of bool, the candidates that are no text."""

    @property
    def has_several(self) -> bool:
        """Whether a row has several texts that belong to its first one."""
        return len(self.row) > len(self.row_ids)

    def anchors(self, out: SentenceOutput) -> Tensor:
        """Return the vector of the first text of each pair: (P, E)."""
        from bertune.distributed import all_gather

        return all_gather(out.vectors[self.first])[self.row]

    def vectors(self, out: SentenceOutput) -> Tensor:
        """Return the vector of each candidate: (N, E)."""
        from bertune.distributed import all_gather

        return all_gather(out.vectors[self.others])

    def of_same_row(self) -> Tensor:
        """Return which candidates belong to the first text of a pair by its own row, (P, N) of bool.

        Without the pair's own.
        """
        import torch

        belongs = torch.zeros(len(self.row_ids), len(self.candidate_ids), dtype=torch.bool)
        belongs = belongs.to(self.row.device)
        belongs[self.row, self.positive] = True
        belongs = belongs[self.row]
        belongs[torch.arange(len(self.row), device=self.row.device), self.positive] = False
        return belongs


def gather_candidates(pair_index: PairIndex, num_positives: Sequence[int]) -> Candidates:
    """Return the pairs and candidates of the rows of all processes.

    Args:
        pair_index: the texts of the rows of this process; each process has the same number of places.
        num_positives: of each row, the number of its texts, from the second on, that belong to the first.
    """
    import torch

    from bertune.distributed import all_gather

    index = torch.stack(pair_index.text_index)  # (1 + S, B)
    device, num_rows = index.device, index.shape[1]
    others = index[1:].T.flatten()  # row by row
    num_places = len(index) - 1
    pairs = [(row, n) for row, count in enumerate(num_positives) for n in range(count)]
    row = torch.tensor([row for row, _ in pairs], dtype=torch.int64).to(device)
    place = torch.tensor([n for _, n in pairs], dtype=torch.int64).to(device)
    row = row + _rows_before(num_rows, device)
    texts = others.clamp_min(0)
    return Candidates(
        index[0],
        texts,
        all_gather(row),
        all_gather(row * num_places + place),
        all_gather(pair_index.text_ids[index[0]]),
        all_gather(pair_index.text_ids[texts]),
        all_gather(others < 0),
    )


def _rows_before(num_rows: int, device: torch.device) -> Any:
    """Return how many rows the processes before this one have."""
    import torch

    from bertune.distributed import all_gather, rank

    return all_gather(torch.tensor([num_rows], device=device))[: rank()].sum()
