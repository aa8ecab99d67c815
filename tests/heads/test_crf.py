"""The CRF equals sums over all legal paths, and a row does not depend on the others."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given as each
from hypothesis import settings
from hypothesis import strategies as some

from bertune.heads.crf import (
    CRFPotentials,
    PackedSteps,
    k_best,
    log_partition,
    marginals,
    negative_log_likelihood,
    path_score,
    span_log_probability,
    viterbi,
)

NAMES = CRFPotentials._fields
INFINITE = float("inf")


def random_chain(num_words, num_labels, seed, illegal=0.0, dtype=torch.float64) -> CRFPotentials:
    """A chain in which some pairs, first and last labels are illegal, but never label 0."""
    random = torch.Generator().manual_seed(seed)
    emissions, *rest = (
        torch.randn(size, generator=random, dtype=torch.float64)
        for size in ((num_words, num_labels), (num_labels, num_labels), (num_labels,), (num_labels,))
    )
    for scores in rest:
        forbidden = torch.rand(scores.shape, generator=random) < illegal
        forbidden.view(-1)[0] = False
        scores[forbidden] = -INFINITE
    return CRFPotentials(*(x.to(dtype) for x in (emissions, *rest)))


@some.composite
def chains(draw):
    lengths = tuple(draw(some.lists(some.integers(0, 5), min_size=1, max_size=4)))
    illegal = draw(some.sampled_from([0.0, 0.3, 0.8]))
    return random_chain(
        sum(lengths), draw(some.integers(1, 4)), draw(some.integers(0, 2**31)), illegal
    ), lengths


def all_paths(chain: CRFPotentials, lengths):
    """For each row with words: its offset, its paths (P, S), and their scores (P,)."""
    begin = 0
    for length in lengths:
        if length:
            paths = torch.tensor(list(itertools.product(range(len(chain.start)), repeat=length)))
            scores = chain.start[paths[:, 0]] + chain.end[paths[:, -1]]
            for t in range(length):
                scores = scores + chain.emissions[begin + t, paths[:, t]]
                if t:
                    scores = scores + chain.transitions[paths[:, t - 1], paths[:, t]]
            yield begin, paths, scores
        begin += length


def legal_labels(chain: CRFPotentials, lengths, seed):
    """One possible path a row, as labels (M,), and the sum of the scores."""
    random = torch.Generator().manual_seed(seed)
    labels, total = [], torch.zeros((), dtype=chain.emissions.dtype)
    for _, paths, scores in all_paths(chain, lengths):
        possible = torch.nonzero(scores.isfinite())[:, 0]
        chosen = possible[torch.randint(len(possible), (), generator=random)]
        labels.append(paths[chosen])
        total = total + scores[chosen]
    return torch.cat(labels or [torch.zeros(0, dtype=torch.int64)]), total


def learning(chain: CRFPotentials) -> CRFPotentials:
    return CRFPotentials(*(x.clone().requires_grad_() for x in chain))


def gradients(loss, chain: CRFPotentials):
    actual = torch.autograd.grad(loss, list(chain), allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(chain, actual, strict=True)]


def loop_partition(chain: CRFPotentials, lengths):
    """A loop over words, for rows with too many paths to list; gradients by autograd."""
    total = 0.0
    for row in chain.emissions.split(list(lengths)):
        alpha = chain.start + row[0]
        for e in row[1:]:
            alpha = torch.logsumexp(alpha[:, None] + chain.transitions, 0) + e
        total = total + torch.logsumexp(alpha + chain.end, 0)
    return total


@settings(deadline=None, max_examples=60)
@each(chains(), some.integers(0, 99))
def test_scores_and_partition_are_those_of_all_paths(case, seed):
    chain, lengths = case
    labels, score = legal_labels(chain, lengths, seed)
    steps = PackedSteps(lengths, labels.device)
    torch.testing.assert_close(path_score(chain, steps, labels), score)
    partition = sum(
        (torch.logsumexp(scores, 0) for _, _, scores in all_paths(chain, lengths)),
        torch.zeros((), dtype=torch.float64),
    )
    torch.testing.assert_close(log_partition(chain, steps), partition)
    torch.testing.assert_close(negative_log_likelihood(chain, lengths, labels), partition - score)


@settings(deadline=None, max_examples=60)
@each(chains(), some.integers(1, 5))
def test_best_paths_are_the_best_of_all(case, k):
    chain, lengths = case
    labels, scores = k_best(chain, lengths, k)
    assert labels.shape == (sum(lengths), k)
    assert scores.shape == (len(lengths), k)
    assert torch.equal(labels[:, 0], viterbi(chain, lengths))
    assert (scores[[not length for length in lengths]] == -INFINITE).all()
    rows = [row for row, length in enumerate(lengths) if length]
    for row, (begin, paths, all_scores) in zip(rows, all_paths(chain, lengths), strict=True):
        best = torch.cat([all_scores.sort(descending=True).values, torch.full((k,), -INFINITE)])[
            :k
        ]  # there may be fewer paths than k
        torch.testing.assert_close(scores[row], best)
        score_of = dict(zip(map(tuple, paths.tolist()), all_scores.tolist(), strict=True))
        actual = [tuple(path) for path in labels[begin : begin + paths.shape[1]].t().tolist()]
        real = [rank for rank in range(k) if best[rank] > -INFINITE]
        assert [score_of[actual[rank]] for rank in real] == pytest.approx(best[real].tolist())
        assert len({actual[rank] for rank in real}) == len(real)


@settings(deadline=None, max_examples=60)
@each(chains())
def test_marginals_are_sums_over_all_paths(case):
    chain, lengths = case
    actual = marginals(chain, lengths)
    expected = torch.zeros_like(actual)
    for begin, paths, scores in all_paths(chain, lengths):
        path_probs = torch.softmax(scores, 0)
        for t in range(paths.shape[1]):
            expected[begin + t].index_add_(0, paths[:, t], path_probs)
    torch.testing.assert_close(actual, expected)


@settings(deadline=None, max_examples=60)
@each(chains(), some.integers(0, 99))
def test_spans_have_the_probability_of_all_paths_through_them(case, seed):
    chain, lengths = case
    labels, _ = legal_labels(chain, lengths, seed)
    spans, expected = [], []
    for begin, paths, scores in all_paths(chain, lengths):
        path_probs = torch.softmax(scores, 0)
        for a, b in itertools.combinations_with_replacement(range(paths.shape[1]), 2):
            through = (paths[:, a : b + 1] == labels[begin + a : begin + b + 1]).all(1)
            spans.append((begin + a, begin + b))
            expected.append(path_probs[through].sum())
    starts, ends = torch.tensor(spans, dtype=torch.int64).reshape(-1, 2).unbind(1)
    actual = span_log_probability(chain, lengths, labels, starts, ends)
    assert (actual <= 0).all()
    assert actual.exp().tolist() == pytest.approx([float(x) for x in expected], rel=1e-5, abs=1e-7)


def test_a_span_with_an_illegal_pair_has_probability_0():
    chain = random_chain(3, 2, 0)
    chain.transitions[0, 1] = -INFINITE
    spans = torch.tensor([[0, 1], [1, 2], [0, 2]])
    actual = span_log_probability(chain, (3,), torch.tensor([0, 1, 0]), *spans.unbind(1))
    ((_, paths, scores),) = all_paths(chain, (3,))
    path_probs = torch.softmax(scores, 0)
    possible = path_probs[(paths[:, 1] == 1) & (paths[:, 2] == 0)].sum().item()
    assert actual.exp().tolist() == pytest.approx([0, possible, 0])


@settings(deadline=None, max_examples=60)
@each(chains(), some.integers(0, 99), some.sampled_from([1.0, -2.5]))
def test_gradients_are_those_of_all_paths(case, seed, factor):
    chain, lengths = learning(case[0]), case[1]
    labels, _ = legal_labels(chain, lengths, seed)
    actual = gradients(negative_log_likelihood(chain, lengths, labels) * factor, chain)
    loop = learning(case[0])
    zero = loop.emissions.sum() * 0
    partition = sum((torch.logsumexp(scores, 0) for _, _, scores in all_paths(loop, lengths)), zero)
    expected = gradients((partition - legal_labels(loop, lengths, seed)[1]) * factor, loop)
    for name, a, b, scores in zip(NAMES, actual, expected, chain, strict=True):
        assert a.isfinite().all(), name
        assert (a[scores == -INFINITE] == 0).all(), name
        torch.testing.assert_close(a, b, msg=lambda text, name=name: f"{name}: {text}")


@settings(deadline=None, max_examples=10)
@each(chains(), some.integers(0, 99))
def test_gradients_are_differences(case, seed):
    chain, lengths = learning(case[0]), case[1]
    labels, _ = legal_labels(chain, lengths, seed)
    torch.autograd.gradcheck(
        lambda *parts: negative_log_likelihood(CRFPotentials(*parts), lengths, labels), tuple(chain)
    )


@settings(deadline=None, max_examples=40)
@each(chains(), some.randoms(use_true_random=False))
def test_rows_know_nothing_of_each_other(case, random):
    chain, lengths = case
    labels, _ = legal_labels(chain, lengths, 0)
    begins = [sum(lengths[:row]) for row in range(len(lengths))]
    nll = negative_log_likelihood(chain, lengths, labels)

    def part(rows):
        at = torch.tensor([begins[row] + t for row in rows for t in range(lengths[row])], dtype=torch.int64)
        return at, chain._replace(emissions=chain.emissions[at]), tuple(lengths[row] for row in rows)

    order = list(range(len(lengths)))
    random.shuffle(order)
    at, other, sizes = part(order)
    torch.testing.assert_close(negative_log_likelihood(other, sizes, labels[at]), nll)
    torch.testing.assert_close(marginals(other, sizes), marginals(chain, lengths)[at], rtol=1e-12, atol=1e-12)
    assert torch.equal(k_best(other, sizes, 3)[1], k_best(chain, lengths, 3)[1][order])
    assert torch.equal(viterbi(other, sizes), viterbi(chain, lengths)[at])
    alone = [part([row]) for row in range(len(lengths))]
    torch.testing.assert_close(sum(negative_log_likelihood(c, s, labels[at]) for at, c, s in alone), nll)
    assert torch.equal(torch.cat([viterbi(c, s) for _, c, s in alone]), viterbi(chain, lengths))


LONG = (500, 3, 500, 1, 217)


def large(dtype, illegal):
    chain = random_chain(sum(LONG), 9, 5, illegal)
    return CRFPotentials(
        *(x.to(dtype) for x in chain._replace(emissions=chain.emissions.float().double() * 100))
    )


@pytest.mark.parametrize("illegal", [0.0, 0.4])
def test_large_scores_in_fp32_are_those_of_float64(illegal):
    exact, rough = learning(large(torch.float64, illegal)), learning(large(torch.float32, illegal))
    best = viterbi(exact, LONG)
    labels = k_best(exact, LONG, 2)[0][:, 1] if not illegal else best
    steps = PackedSteps(LONG, labels.device)
    for measure in (log_partition, lambda c, s: path_score(c, s, labels)):
        actual, expected = measure(rough, steps), measure(exact, steps)
        assert actual.item() == pytest.approx(expected.item(), rel=1e-4)
    torch.testing.assert_close(log_partition(exact, steps), loop_partition(exact, LONG))
    scores = k_best(rough, LONG, 3)[1]
    torch.testing.assert_close(scores.double(), k_best(exact, LONG, 3)[1], rtol=1e-4, atol=0)
    for name, g in zip(NAMES, gradients(negative_log_likelihood(rough, LONG, labels), rough), strict=True):
        assert g.isfinite().all(), name
    actual = marginals(rough, LONG)
    assert actual.isfinite().all()
    assert actual.sum(1).tolist() == pytest.approx(
        [1] * sum(LONG), abs=0.3
    )  # at scores near 1e5, fp32 has steps of 1/128
    starts = torch.tensor([0, 503, 1003])
    sure = span_log_probability(rough, LONG, best, starts, starts + torch.tensor([499, 2, 0]))
    assert sure.isfinite().all()


@pytest.mark.parametrize("illegal", [0.0, 0.4])
def test_gradients_of_large_scores_in_float64(illegal):
    chain, loop = learning(large(torch.float64, illegal)), learning(large(torch.float64, illegal))
    actual = gradients(log_partition(chain, PackedSteps(LONG, torch.device("cpu"))), chain)
    if illegal:  # logsumexp has no gradient for a column of -inf
        loop = CRFPotentials(*(x.detach().nan_to_num(neginf=-1e9).requires_grad_() for x in loop))
    expected = gradients(loop_partition(loop, LONG), loop)
    for name, a, b in zip(NAMES, actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")
    assert actual[1].sum().item() == pytest.approx(sum(LONG) - len(LONG))


def test_expected_pairs_where_the_best_way_on_is_illegal():
    """The label that leads by far up to word 1 may not be followed by the one that leads by far at word 2."""
    for gap in (10.0, 600.0, 1000.0):
        emissions = torch.tensor([[0, gap], [0, 2 * gap]], dtype=torch.float64)
        transitions = torch.tensor([[0, 0], [0, -INFINITE]], dtype=torch.float64)
        chain = learning(
            CRFPotentials(emissions, transitions, torch.zeros(2).double(), torch.zeros(2).double())
        )
        actual = gradients(log_partition(chain, PackedSteps((2,), torch.device("cpu"))), chain)
        torch.testing.assert_close(
            actual[1].sum().item(), 1.0, msg=lambda text, gap=gap: f"gap {gap}: {text}"
        )
        assert actual[1][0, 1].item() == pytest.approx(1, abs=1e-4)
        assert actual[1][1, 1].item() == 0


def test_rows_without_words_cost_nothing():
    chain, lengths = learning(random_chain(0, 3, 0)), (0, 0)
    labels = torch.zeros(0, dtype=torch.int64)
    loss = negative_log_likelihood(chain, lengths, labels)
    assert loss.item() == 0
    assert all((g == 0).all() for g in gradients(loss, chain))
    assert viterbi(chain, lengths).shape == (0,)
    assert marginals(chain, lengths).shape == (0, 3)
    assert span_log_probability(chain, lengths, labels, labels, labels).shape == (0,)


@settings(deadline=None, max_examples=25)
@each(some.lists(some.integers(1, 12), min_size=1, max_size=6), some.integers(1, 7), some.integers(0, 999))
def test_parity_with_torchcrf(lengths, num_labels, seed):
    torchcrf = pytest.importorskip("torchcrf")
    lengths = tuple(lengths)
    chain = learning(random_chain(sum(lengths), num_labels, seed))
    labels = torch.randint(num_labels, (sum(lengths),), generator=torch.Generator().manual_seed(seed))
    reference = torchcrf.CRF(num_labels, batch_first=True).double()
    for name, parameter in (
        ("transitions", chain.transitions),
        ("start_transitions", chain.start),
        ("end_transitions", chain.end),
    ):
        getattr(reference, name).data = parameter.detach().clone()
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    emissions = torch.full((*mask.shape, num_labels), 7.0, dtype=torch.float64)
    emissions[mask] = chain.emissions.detach()
    emissions.requires_grad_()
    padded = torch.zeros(mask.shape, dtype=torch.int64)
    padded[mask] = labels
    loss = -reference(emissions, padded, mask=mask, reduction="sum")
    ours = negative_log_likelihood(chain, lengths, labels)
    assert ours.item() == pytest.approx(loss.item(), rel=1e-9, abs=1e-9)
    loss.backward()
    ours.backward()
    expected = (
        emissions.grad[mask],
        reference.transitions.grad,
        reference.start_transitions.grad,
        reference.end_transitions.grad,
    )
    for name, parameter, other in zip(NAMES, chain, expected, strict=True):
        other = torch.zeros_like(parameter) if other is None else other  # rows of one word have no pair
        torch.testing.assert_close(
            parameter.grad, other, rtol=1e-8, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}"
        )
    assert viterbi(chain, lengths).tolist() == [
        label for row in reference.decode(emissions, mask) for label in row
    ]
    assert math.isfinite(loss.item())
