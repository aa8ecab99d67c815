"""Linear-chain CRF over ragged rows: scores, partition, best paths, marginals.

A chain is a row of words, each with one of N labels. `score(y) = start[y_1] + sum e_t[y_t] + sum transitions[y_t-1, y_t] + end[y_T]`;
`P(y) = exp(score(y) - log Z)`. What is not allowed has a score of -inf and probability 0.

Rows are sorted by length and laid out step by step (`PackedSteps`): at step t the rows that are longer than t are the first ones, so every
step is one tensor operation over the rows that are still there. There is no mask, no padding and no loop over rows. The gradient of
log Z is computed from marginals in one pass backward instead of by autograd through every step.

Letters: `M` words of the batch, `B` rows, `S` steps (words of the longest row), `N` labels, `K` best paths.

Source: Lafferty, McCallum and Pereira 2001; Rabiner 1989 for forward, backward and Viterbi.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

_LARGEST = 600.0
"""Largest exponent that leaves room for sums in float64."""


class CRFPotentials(NamedTuple):
    """What a chain is judged by, in fp32: scores of words (M, N), of pairs (N, N), of first and last labels (N,)."""

    emissions: Tensor
    transitions: Tensor
    start: Tensor
    end: Tensor


class PackedSteps:
    """The words of ragged rows, laid out step by step.

    Args:
        lengths: words of each row; rows without words take no part.
        device: where the emissions are.
    """

    def __init__(self, lengths: tuple[int, ...], device: torch.device) -> None:
        counts = torch.tensor(lengths, dtype=torch.int64)
        order = torch.argsort(counts, descending=True, stable=True)
        order = order[counts[order] > 0]
        self.num_rows = len(order)
        offsets = torch.cumsum(counts, 0) - counts
        longest = int(counts.max()) if self.num_rows else 0
        steps = torch.arange(longest)
        alive = steps[:, None] < counts[order][None, :]  # (S, B)
        self.batch_sizes: list[int] = alive.sum(1).tolist()
        """Rows that have a word at each step."""
        places = (offsets[order][None, :] + steps[:, None])[alive]
        self.sorted_indices = order.to(device)
        """The row that stands at each place of a step."""
        self.word_index = places.to(device)
        """(M,) from the order of the steps to that of the words."""
        self.step_offsets: list[int] = (
            (torch.cumsum(alive.sum(1), 0) - alive.sum(1)).tolist() if longest else []
        )
        """Where each step begins in that order."""
        ends = torch.tensor([*self.step_offsets, len(places)])[counts[order] - 1] + torch.arange(
            self.num_rows
        )
        self.last_word_index = ends.to(device)
        """(B,) the last word of each row, in the order of the steps."""

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self.batch_sizes)

    def step_slice(self, t: int) -> slice:
        """Return where the words of step t stand."""
        return slice(self.step_offsets[t], self.step_offsets[t] + self.batch_sizes[t])

    def previous_slice(self, t: int) -> slice:
        """Return where the words before those of step t stand."""
        return slice(self.step_offsets[t - 1], self.step_offsets[t - 1] + self.batch_sizes[t])


def _forward(chain: CRFPotentials, steps: PackedSteps) -> Tensor:
    """Return alpha (M, N), in the order of the steps: log of the summed scores of all paths up to a label, itself included."""
    e, _, start, _ = chain
    into = (
        chain.transitions.t().contiguous()
    )  # (N, N), to and from: sums run over numbers that lie side by side
    alpha = torch.empty_like(e)
    for t in range(len(steps)):
        here = e[steps.step_slice(t)]
        if t == 0:
            alpha[steps.step_slice(0)] = here + start
        else:
            alpha[steps.step_slice(t)] = (
                torch.logsumexp(alpha[steps.previous_slice(t)].unsqueeze(1) + into, 2) + here
            )
    return alpha


def _backward(chain: CRFPotentials, steps: PackedSteps) -> Tensor:
    """Return beta (M, N), in the order of the steps: log of the summed scores of all ways on from a label."""
    e, transitions, _, end = chain
    beta = torch.empty_like(e)
    beta[steps.last_word_index] = end.expand(steps.num_rows, -1)
    for t in range(len(steps) - 1, 0, -1):
        here = steps.step_slice(t)
        beta[steps.previous_slice(t)] = torch.logsumexp((beta[here] + e[here]).unsqueeze(1) + transitions, 2)
    return beta


def _in_steps(chain: CRFPotentials, steps: PackedSteps) -> CRFPotentials:
    """Return the chain in the order of the steps, in float64: sums over long rows are large, and their differences are what counts."""
    return CRFPotentials(
        chain.emissions[steps.word_index].double(), *(scores.double() for scores in chain[1:])
    )


def _wide(chain: CRFPotentials) -> CRFPotentials:
    """Return the chain where float64 can be computed: Apple GPUs have none."""
    return (
        CRFPotentials(*(scores.cpu() for scores in chain)) if chain.emissions.device.type == "mps" else chain
    )


class _LogPartition(torch.autograd.Function):
    """Sum of log Z over rows; its gradient is what the model expects to see: marginals of words and of pairs."""

    @staticmethod
    def forward(
        ctx: Any, emissions: Tensor, transitions: Tensor, start: Tensor, end: Tensor, steps: PackedSteps
    ) -> Tensor:
        chain = _in_steps(CRFPotentials(emissions, transitions, start, end), steps)
        ctx.dtype = emissions.dtype
        alpha = _forward(chain, steps)
        log_z = torch.logsumexp(alpha[steps.last_word_index] + end, 1)  # (B,)
        ctx.save_for_backward(*chain, alpha, log_z)
        ctx.steps = steps
        return log_z.sum().to(emissions.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *parts, alpha, log_z = ctx.saved_tensors
        chain, steps = CRFPotentials(*parts), ctx.steps
        beta = _backward(chain, steps)
        of_word = _expand_rows(log_z, steps)[:, None]  # (M, 1)
        marginals = torch.exp(alpha + beta - of_word)  # (M, N)
        emissions = torch.empty_like(marginals)
        emissions[steps.word_index] = marginals
        pairs = _expected_pairs(chain, steps, alpha, beta, of_word)
        first = marginals[steps.step_slice(0)].sum(0) if len(steps) else torch.zeros_like(chain.start)
        expected = (emissions, pairs, first, marginals[steps.last_word_index].sum(0))
        return *(grad * counts.to(ctx.dtype) for counts in expected), None


def _expand_rows(of_row: Tensor, steps: PackedSteps) -> Tensor:
    """Give each word, in the order of the steps, the value of its row: (B,) -> (M,)."""
    return torch.cat([of_row[:size] for size in steps.batch_sizes]) if len(steps) else of_row.new_zeros(0)


def _expected_pairs(
    chain: CRFPotentials, steps: PackedSteps, alpha: Tensor, beta: Tensor, log_z: Tensor
) -> Tensor:
    """Return how often each pair of labels is expected in all rows: (N, N).

    The sum over words of exp(alpha_i + transitions_ij + e_j + beta_j - log Z) is a matrix product in which each word has a constant
    taken from one factor and given to the other, as far as the exponents of float64 leave room for that.
    """
    if len(steps) < 2:
        return torch.zeros_like(chain.transitions)
    earlier = torch.cat([alpha[steps.previous_slice(t)] for t in range(1, len(steps))])
    onward = (chain.emissions + beta - log_z)[steps.batch_sizes[0] :]
    most = earlier.max(1, keepdim=True).values
    if len(onward) and float((onward + most).max()) > _LARGEST:
        pairs = zip(torch.split(earlier, 64), torch.split(onward, 64), strict=True)
        return sum(
            (torch.exp(a.unsqueeze(2) + chain.transitions + b.unsqueeze(1)).sum(0) for a, b in pairs),
            torch.zeros_like(chain.transitions),
        )
    return torch.exp(earlier - most).t() @ torch.exp(onward + most) * chain.transitions.exp()


def log_partition(chain: CRFPotentials, steps: PackedSteps) -> Tensor:
    """Return log Z summed over rows; gradients of first order."""
    total: Tensor = _LogPartition.apply(*chain, steps)  # type: ignore[no-untyped-call]
    return total


def path_score(chain: CRFPotentials, steps: PackedSteps, labels: Tensor) -> Tensor:
    """Return the score of one path a row, summed over rows.

    Args:
        chain: what it is judged by.
        steps: the rows.
        labels: (M,) a label a word.
    """
    y = labels[steps.word_index]
    total = chain.emissions[steps.word_index].gather(1, y[:, None]).sum()
    if len(steps):
        earlier = torch.cat([y[steps.previous_slice(t)] for t in range(1, len(steps))] or [y[:0]])
        total = total + chain.start[y[: steps.num_rows]].sum() + chain.end[y[steps.last_word_index]].sum()
        total = total + chain.transitions[earlier, y[steps.num_rows :]].sum()
    return total


def negative_log_likelihood(chain: CRFPotentials, lengths: tuple[int, ...], labels: Tensor) -> Tensor:
    """Return -log P(labels), summed over rows."""
    chain, labels = _wide(chain), labels.cpu() if labels.device.type == "mps" else labels
    steps = PackedSteps(lengths, labels.device)
    return log_partition(chain, steps) - path_score(chain, steps, labels)


@torch.no_grad()
def viterbi(chain: CRFPotentials, lengths: tuple[int, ...]) -> Tensor:
    """Return the best path of each row: (M,) labels in the order of the words."""
    return k_best(chain, lengths, 1)[0][:, 0]


@torch.no_grad()
def k_best(chain: CRFPotentials, lengths: tuple[int, ...], k: int) -> tuple[Tensor, Tensor]:
    """Return the K best paths of each row.

    Args:
        chain: what they are judged by.
        lengths: words of each row.
        k: how many; a row that has fewer paths gets scores of -inf beyond them.

    Returns:
        Labels (M, K) in the order of the words, best first, and the scores of the paths (B, K); -inf for rows without words.

    Source: Seshadri and Sundberg 1994, the parallel list Viterbi algorithm.
    """
    device, dtype = chain.emissions.device, chain.emissions.dtype
    chain = _wide(chain)
    steps = PackedSteps(lengths, chain.emissions.device)
    e, transitions, start, end = _in_steps(chain, steps)
    n = len(start)
    scores = e.new_full((len(lengths), k), float("-inf"))
    labels = torch.zeros(len(e), k, dtype=torch.int64, device=e.device)
    if not len(steps):
        return labels.to(device), scores.to(device, dtype)
    best = e.new_full((steps.num_rows, n, k), float("-inf"))  # of paths that end in a label
    best[:, :, 0] = e[steps.step_slice(0)] + start
    whole = torch.empty_like(best)  # what each row has at its last word
    came_from: list[Tensor] = []
    for t in range(1, len(steps)):
        size = steps.batch_sizes[t]
        whole[size : len(best)] = best[size:]
        # (rows, from N x K, to N)
        reach = (best[:size].unsqueeze(-1) + transitions[:, None, :]).flatten(1, 2)
        if k == 1:
            best, source = reach.max(1, keepdim=True)
        else:
            best, source = reach.topk(k, 1)
        came_from.append(source)  # (rows, K, N): label * K + rank
        best = best.transpose(1, 2) + e[steps.step_slice(t)].unsqueeze(-1)
    whole[: len(best)] = best
    values, at = (whole + end[:, None]).flatten(1).topk(min(k, n * k), 1)
    scores[steps.sorted_indices] = values
    ordered = _walk_back(at, came_from, steps, k)
    labels[steps.word_index] = ordered
    return labels.to(device), scores.to(device, dtype)


def _walk_back(at: Tensor, came_from: list[Tensor], steps: PackedSteps, k: int) -> Tensor:
    """Return the labels (M, K) in the order of the steps from where the paths end, (B, K): label * K + rank."""
    labels = at.new_zeros(sum(steps.batch_sizes), k)
    here = at.clone()
    for t in range(len(steps) - 1, -1, -1):
        now = here[: steps.batch_sizes[t]]
        labels[steps.step_slice(t)] = now // k
        if t:
            flat = came_from[t - 1].transpose(1, 2).flatten(1)  # (rows, N x K): where each path came from
            here[: steps.batch_sizes[t]] = flat.gather(1, now)
    return labels


@torch.no_grad()
def span_log_probability(
    chain: CRFPotentials, lengths: tuple[int, ...], labels: Tensor, starts: Tensor, ends: Tensor
) -> Tensor:
    """Return log P(words s to e carry these labels) for spans of words, whatever stands around them.

    Args:
        chain: what paths are judged by.
        lengths: words of each row.
        labels: (M,) the labels in question.
        starts: (E,) the first word of each span.
        ends: (E,) the last word of each span, in the same row.
    """
    if not len(starts):
        return starts.new_zeros(0, dtype=torch.float32)
    chain, device = _wide(chain), labels.device
    labels, starts, ends = (x.to(chain.emissions.device) for x in (labels, starts, ends))
    steps = PackedSteps(lengths, labels.device)
    alpha, beta, log_z = _sums(chain, steps)
    # On a given path the score between two words is a difference of running sums; what lies between rows cancels out.
    gained = chain.emissions.gather(1, labels[:, None])[:, 0].double()
    pairs = chain.transitions[labels[:-1], labels[1:]].double()
    gained[1:] += pairs.nan_to_num(neginf=0.0)
    running = torch.cumsum(gained, 0)
    illegal = torch.cumsum(torch.cat([pairs.new_zeros(1), pairs.isneginf().double()]), 0)
    found = (
        alpha[starts, labels[starts]]
        + (running[ends] - running[starts])
        + beta[ends, labels[ends]]
        - log_z[starts]
    )
    return found.masked_fill(illegal[ends] > illegal[starts], float("-inf")).clamp_max(0).float().to(device)


def _sums(chain: CRFPotentials, steps: PackedSteps) -> tuple[Tensor, Tensor, Tensor]:
    """Return alpha, beta (M, N) and log Z of the row (M,), in the order of the words."""
    ordered = _in_steps(chain, steps)
    forward, backward = _forward(ordered, steps), _backward(ordered, steps)
    of_word = _expand_rows(torch.logsumexp(forward[steps.last_word_index] + ordered.end, 1), steps)
    alpha, beta, log_z = torch.empty_like(forward), torch.empty_like(forward), torch.empty_like(of_word)
    alpha[steps.word_index], beta[steps.word_index], log_z[steps.word_index] = forward, backward, of_word
    return alpha, beta, log_z


@torch.no_grad()
def marginals(chain: CRFPotentials, lengths: tuple[int, ...]) -> Tensor:
    """Return the probability of each label of each word: (M, N)."""
    device, dtype = chain.emissions.device, chain.emissions.dtype
    chain = _wide(chain)
    alpha, beta, log_z = _sums(chain, PackedSteps(lengths, chain.emissions.device))
    return torch.exp(alpha + beta - log_z[:, None]).to(device, dtype)
