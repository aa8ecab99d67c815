"""Linear-chain CRF over ragged rows: scores, partition function, best paths, marginals.

A chain is a row of words, each with one of N labels:

    score(y) = start[y_1] + sum e_t[y_t] + sum transitions[y_t-1, y_t] + end[y_T]
    P(y) = exp(score(y) - log Z)

A path that is not legal has a score of -inf and probability 0.

`PackedSteps` sorts rows by length and lays them out step by step. At step t the rows longer than t come
first, so every step is one tensor operation over these rows: no mask, no padding, no loop over rows. One
backward pass computes the gradient of log Z from marginals, where autograd would go through every step.

Letters: `M` words of the batch, `B` rows, `S` steps (words of the longest row), `N` labels, `K` best paths.

Source: Lafferty, McCallum and Pereira 2001; Rabiner 1989 for forward, backward and Viterbi.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

_MAX_EXPONENT = 600.0
"""The largest exponent that leaves room for sums in float64."""


class CRFPotentials(NamedTuple):
    """The scores of a chain, in fp32: of words (M, N), of pairs (N, N), of first and last labels (N,)."""

    emissions: Tensor
    transitions: Tensor
    start: Tensor
    end: Tensor


class PackedSteps:
    """The words of ragged rows, laid out step by step.

    Args:
        lengths: words of each row; rows without words are left out.
        device: where the emissions are.
    """

    def __init__(self, lengths: tuple[int, ...], device: torch.device) -> None:
        counts = torch.tensor(lengths, dtype=torch.int64)
        order = torch.argsort(counts, descending=True, stable=True)
        order = order[counts[order] > 0]
        self.num_rows = len(order)
        offsets = torch.cumsum(counts, 0) - counts
        num_steps = int(counts.max()) if self.num_rows else 0
        steps = torch.arange(num_steps)
        has_word = steps[:, None] < counts[order][None, :]  # (S, B)
        sizes = has_word.sum(1)
        word_index = (offsets[order][None, :] + steps[:, None])[has_word]
        self.batch_sizes: list[int] = sizes.tolist()
        """The number of rows with a word at each step."""
        self.sorted_indices = order.to(device)
        """(B,) the rows in the order in which each step has them."""
        self.word_index = word_index.to(device)
        """(M,) the word at each position of the step order."""
        self.step_offsets: list[int] = (torch.cumsum(sizes, 0) - sizes).tolist() if num_steps else []
        """The position at which each step begins."""
        last_step_offsets = torch.tensor([*self.step_offsets, len(word_index)])[counts[order] - 1]
        self.last_word_index = (last_step_offsets + torch.arange(self.num_rows)).to(device)
        """(B,) the position of the last word of each row."""

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self.batch_sizes)

    def step_slice(self, t: int) -> slice:
        """Return the positions of the words of step t."""
        return slice(self.step_offsets[t], self.step_offsets[t] + self.batch_sizes[t])

    def previous_slice(self, t: int) -> slice:
        """Return the positions of the words before those of step t."""
        return slice(self.step_offsets[t - 1], self.step_offsets[t - 1] + self.batch_sizes[t])


def _forward(chain: CRFPotentials, steps: PackedSteps) -> Tensor:
    """Return alpha (M, N) in step order: log of the summed scores of all paths up to a label, inclusive."""
    emissions, transitions, start, _ = chain
    incoming = transitions.t().contiguous()  # (N, N), to and from: sums run over adjacent numbers
    alpha = torch.empty_like(emissions)
    for t in range(len(steps)):
        step = emissions[steps.step_slice(t)]
        if t == 0:
            alpha[steps.step_slice(0)] = step + start
        else:
            previous = alpha[steps.previous_slice(t)].unsqueeze(1)
            alpha[steps.step_slice(t)] = torch.logsumexp(previous + incoming, 2) + step
    return alpha


def _backward(chain: CRFPotentials, steps: PackedSteps) -> Tensor:
    """Return beta (M, N) in step order: log of the summed scores of all paths onward from a label."""
    emissions, transitions, _, end = chain
    beta = torch.empty_like(emissions)
    beta[steps.last_word_index] = end.expand(steps.num_rows, -1)
    for t in range(len(steps) - 1, 0, -1):
        step = steps.step_slice(t)
        beta[steps.previous_slice(t)] = torch.logsumexp(
            (beta[step] + emissions[step]).unsqueeze(1) + transitions, 2
        )
    return beta


def _to_step_order(chain: CRFPotentials, steps: PackedSteps) -> CRFPotentials:
    """Return the chain in step order, in float64: sums over long rows are large, their differences small."""
    return CRFPotentials(
        chain.emissions[steps.word_index].double(), *(scores.double() for scores in chain[1:])
    )


def _to_float64_device(chain: CRFPotentials) -> CRFPotentials:
    """Return the chain on the CPU where it is on an Apple GPU, which has no float64."""
    if chain.emissions.device.type != "mps":
        return chain
    return CRFPotentials(*(scores.cpu() for scores in chain))


class _LogPartition(torch.autograd.Function):
    """Sum of log Z over rows. Its gradient is the expected counts: marginals of words and of pairs."""

    @staticmethod
    def forward(
        ctx: Any, emissions: Tensor, transitions: Tensor, start: Tensor, end: Tensor, steps: PackedSteps
    ) -> Tensor:
        chain = _to_step_order(CRFPotentials(emissions, transitions, start, end), steps)
        ctx.dtype = emissions.dtype
        alpha = _forward(chain, steps)
        log_z = torch.logsumexp(alpha[steps.last_word_index] + end, 1)  # (B,)
        ctx.save_for_backward(*chain, alpha, log_z)
        ctx.steps = steps
        return log_z.sum().to(emissions.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *potentials, alpha, log_z = ctx.saved_tensors
        chain, steps = CRFPotentials(*potentials), ctx.steps
        beta = _backward(chain, steps)
        word_log_z = _expand_rows(log_z, steps)[:, None]  # (M, 1)
        marginals = torch.exp(alpha + beta - word_log_z)  # (M, N)
        emissions = torch.empty_like(marginals)
        emissions[steps.word_index] = marginals
        pairs = _expected_pairs(chain, steps, alpha, beta, word_log_z)
        first = marginals[steps.step_slice(0)].sum(0) if len(steps) else torch.zeros_like(chain.start)
        expected = (emissions, pairs, first, marginals[steps.last_word_index].sum(0))
        return *(grad * counts.to(ctx.dtype) for counts in expected), None


def _expand_rows(values: Tensor, steps: PackedSteps) -> Tensor:
    """Return the row's value for each word, in step order: (B,) to (M,)."""
    return torch.cat([values[:size] for size in steps.batch_sizes]) if len(steps) else values.new_zeros(0)


def _expected_pairs(
    chain: CRFPotentials, steps: PackedSteps, alpha: Tensor, beta: Tensor, log_z: Tensor
) -> Tensor:
    """Return the expected count of each pair of labels over all rows: (N, N).

    It is the sum over words of exp(alpha_i + transitions_ij + e_j + beta_j - log Z). This is a matrix product
    in which each word's largest alpha moves from the first factor to the second. Where that exceeds the
    exponents of float64, the sum is computed in blocks of words.
    """
    if len(steps) < 2:
        return torch.zeros_like(chain.transitions)
    previous = torch.cat([alpha[steps.previous_slice(t)] for t in range(1, len(steps))])
    onward = (chain.emissions + beta - log_z)[steps.batch_sizes[0] :]
    highest = previous.max(1, keepdim=True).values
    if len(onward) and float((onward + highest).max()) > _MAX_EXPONENT:
        blocks = zip(torch.split(previous, 64), torch.split(onward, 64), strict=True)
        return sum(
            (torch.exp(a.unsqueeze(2) + chain.transitions + b.unsqueeze(1)).sum(0) for a, b in blocks),
            torch.zeros_like(chain.transitions),
        )
    return torch.exp(previous - highest).t() @ torch.exp(onward + highest) * chain.transitions.exp()


def log_partition(chain: CRFPotentials, steps: PackedSteps) -> Tensor:
    """Return log Z summed over rows. It has first-order gradients only."""
    total: Tensor = _LogPartition.apply(*chain, steps)  # type: ignore[no-untyped-call]
    return total


def path_score(chain: CRFPotentials, steps: PackedSteps, labels: Tensor) -> Tensor:
    """Return the score of one path a row, summed over rows.

    Args:
        chain: the scores.
        steps: the rows.
        labels: (M,) one a word.
    """
    y = labels[steps.word_index]
    total = chain.emissions[steps.word_index].gather(1, y[:, None]).sum()
    if len(steps):
        previous = torch.cat([y[steps.previous_slice(t)] for t in range(1, len(steps))] or [y[:0]])
        total = total + chain.start[y[: steps.num_rows]].sum() + chain.end[y[steps.last_word_index]].sum()
        total = total + chain.transitions[previous, y[steps.num_rows :]].sum()
    return total


def negative_log_likelihood(chain: CRFPotentials, lengths: tuple[int, ...], labels: Tensor) -> Tensor:
    """Return -log P(labels), summed over rows."""
    chain, labels = _to_float64_device(chain), labels.cpu() if labels.device.type == "mps" else labels
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
        chain: the scores.
        lengths: words of each row.
        k: the number of paths; a row with fewer gets scores of -inf for the others.

    Returns:
        Labels (M, K) in the order of the words, best path first; and the scores of the paths (B, K), -inf for
        rows without words.

    Source: Seshadri and Sundberg 1994, the parallel list Viterbi algorithm.
    """
    device, dtype = chain.emissions.device, chain.emissions.dtype
    chain = _to_float64_device(chain)
    steps = PackedSteps(lengths, chain.emissions.device)
    emissions, transitions, start, end = _to_step_order(chain, steps)
    n = len(start)
    scores = emissions.new_full((len(lengths), k), float("-inf"))
    labels = torch.zeros(len(emissions), k, dtype=torch.int64, device=emissions.device)
    if not len(steps):
        return labels.to(device), scores.to(device, dtype)
    best = emissions.new_full((steps.num_rows, n, k), float("-inf"))  # of the paths that end in a label
    best[:, :, 0] = emissions[steps.step_slice(0)] + start
    final = torch.empty_like(best)  # `best` at the last word of each row
    backpointers: list[Tensor] = []
    for t in range(1, len(steps)):
        size = steps.batch_sizes[t]
        final[size : len(best)] = best[size:]
        # (rows, from N x K, to N)
        candidates = (best[:size].unsqueeze(-1) + transitions[:, None, :]).flatten(1, 2)
        if k == 1:
            best, source = candidates.max(1, keepdim=True)
        else:
            best, source = candidates.topk(k, 1)
        backpointers.append(source)  # (rows, K, N): label * K + rank
        best = best.transpose(1, 2) + emissions[steps.step_slice(t)].unsqueeze(-1)
    final[: len(best)] = best
    values, last = (final + end[:, None]).flatten(1).topk(min(k, n * k), 1)
    scores[steps.sorted_indices] = values
    labels[steps.word_index] = _backtrack(last, backpointers, steps, k)
    return labels.to(device), scores.to(device, dtype)


def _backtrack(last: Tensor, backpointers: list[Tensor], steps: PackedSteps, k: int) -> Tensor:
    """Return the labels (M, K) of paths in step order.

    Args:
        last: (B, K) where the paths end: label * K + rank.
        backpointers: (rows, K, N) for each step but the first, where its paths come from.
        steps: the rows.
        k: paths of each row.
    """
    labels = last.new_zeros(sum(steps.batch_sizes), k)
    state = last.clone()
    for t in range(len(steps) - 1, -1, -1):
        current = state[: steps.batch_sizes[t]]
        labels[steps.step_slice(t)] = current // k
        if t:
            sources = backpointers[t - 1].transpose(1, 2).flatten(1)  # (rows, N x K)
            state[: steps.batch_sizes[t]] = sources.gather(1, current)
    return labels


@torch.no_grad()
def span_log_probability(
    chain: CRFPotentials, lengths: tuple[int, ...], labels: Tensor, starts: Tensor, ends: Tensor
) -> Tensor:
    """Return log P(words s to e have these labels) for spans of words (E,), whatever the labels around them.

    Args:
        chain: the scores.
        lengths: words of each row.
        labels: (M,) one a word.
        starts: (E,) the first word of each span.
        ends: (E,) the last word of each span, in the same row.
    """
    if not len(starts):
        return starts.new_zeros(0, dtype=torch.float32)
    chain, device = _to_float64_device(chain), labels.device
    labels, starts, ends = (x.to(chain.emissions.device) for x in (labels, starts, ends))
    steps = PackedSteps(lengths, labels.device)
    alpha, beta, log_z = _forward_backward(chain, steps)
    # On a given path the score from one word to another is a difference of running sums, in which the pairs
    # at the borders of rows cancel out.
    word_scores = chain.emissions.gather(1, labels[:, None])[:, 0].double()
    pairs = chain.transitions[labels[:-1], labels[1:]].double()
    word_scores[1:] += pairs.nan_to_num(neginf=0.0)
    running = torch.cumsum(word_scores, 0)
    illegal = torch.cumsum(torch.cat([pairs.new_zeros(1), pairs.isneginf().double()]), 0)
    log_p = (
        alpha[starts, labels[starts]]
        + (running[ends] - running[starts])
        + beta[ends, labels[ends]]
        - log_z[starts]
    )
    return log_p.masked_fill(illegal[ends] > illegal[starts], float("-inf")).clamp_max(0).float().to(device)


def _forward_backward(chain: CRFPotentials, steps: PackedSteps) -> tuple[Tensor, Tensor, Tensor]:
    """Return alpha, beta (M, N) and log Z of the row (M,), in the order of the words."""
    ordered = _to_step_order(chain, steps)
    forward, backward = _forward(ordered, steps), _backward(ordered, steps)
    word_log_z = _expand_rows(torch.logsumexp(forward[steps.last_word_index] + ordered.end, 1), steps)
    alpha, beta, log_z = torch.empty_like(forward), torch.empty_like(forward), torch.empty_like(word_log_z)
    alpha[steps.word_index], beta[steps.word_index], log_z[steps.word_index] = forward, backward, word_log_z
    return alpha, beta, log_z


@torch.no_grad()
def marginals(chain: CRFPotentials, lengths: tuple[int, ...]) -> Tensor:
    """Return the probability of each label of each word: (M, N)."""
    device, dtype = chain.emissions.device, chain.emissions.dtype
    chain = _to_float64_device(chain)
    alpha, beta, log_z = _forward_backward(chain, PackedSteps(lengths, chain.emissions.device))
    return torch.exp(alpha + beta - log_z[:, None]).to(device, dtype)
