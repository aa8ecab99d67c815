"""Losses and their gradients equal their formulas in float64, and the losses of other libraries."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from bertune.losses.similarity import (
    contrastive_loss,
    cosent_loss,
    cosine_mse_loss,
    cosine_similarity,
    cosine_similarity_matrix,
    false_negative_mask,
    in_batch_negatives_loss,
)

quickly = settings(max_examples=30, deadline=None)
seeds = st.integers(0, 10**6)
inf = math.inf


def vectors(rows: int, width: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def same(actual, reference, *inputs: torch.Tensor, rtol: float = 1e-5, atol: float = 1e-5) -> None:
    """Compare value and gradients of a loss in fp32 with a reference in float64."""
    narrow = [x.detach().float().requires_grad_() for x in inputs]
    wide = [x.detach().double().requires_grad_() for x in inputs]
    value, truth = actual(*narrow), reference(*wide)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), truth, rtol=rtol, atol=atol)
    gradients = torch.autograd.grad(value.sum(), narrow)
    summed = truth.sum() + sum(0 * x.sum() for x in wide)  # unused inputs get a gradient of 0
    truths = torch.autograd.grad(summed, wide)
    for gradient, exact in zip(gradients, truths, strict=True):
        size = max(1.0, float(exact.abs().max()))
        torch.testing.assert_close(gradient.double() / size, exact / size, rtol=rtol, atol=atol)


def reference_cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / sum(x * x for x in a).sqrt() / sum(y * y for y in b).sqrt()


def log_sum(terms: list[torch.Tensor]) -> torch.Tensor:
    """log of the sum of exp, by a loop."""
    total = terms[0]
    for term in terms[1:]:
        total = torch.logaddexp(total, term)
    return total


class TestCosine:
    @quickly
    @given(seeds, st.integers(1, 6), st.integers(1, 6), st.integers(2, 5), st.sampled_from([1e-3, 1.0, 1e4]))
    def test_is_the_product_over_the_lengths(self, seed, rows, others, width, size):
        a, b, c = (
            size * vectors(rows, width, seed),
            vectors(rows, width, seed + 1),
            vectors(others, width, seed + 2),
        )
        # the shorter a vector, the longer its gradient
        same(
            lambda a, b: cosine_similarity(a * size, b),
            lambda a, b: torch.stack([reference_cosine(*ab) for ab in zip(a, b, strict=True)]),
            a / size,
            b,
        )
        same(
            lambda a, c: cosine_similarity_matrix(a * size, c),
            lambda a, c: torch.stack([torch.stack([reference_cosine(x, y) for y in c]) for x in a]),
            a / size,
            c,
        )

    def test_is_that_of_torch(self):
        a, b = vectors(7, 5, 0), vectors(7, 5, 1)
        torch.testing.assert_close(cosine_similarity(a, b), F.cosine_similarity(a, b))
        torch.testing.assert_close(cosine_similarity_matrix(a, b).diagonal(), cosine_similarity(a, b))

    @pytest.mark.parametrize("short", [0.0, 1e-30, 1e-8])
    def test_a_vector_without_direction_gives_0_and_gets_no_gradient(self, short):
        a = torch.stack([torch.full((4,), short), torch.ones(4)]).requires_grad_()
        b = vectors(2, 4, 2).requires_grad_()
        assert cosine_similarity(a, b)[0] == 0
        assert (cosine_similarity_matrix(a, b)[0] == 0).all()
        assert (cosine_similarity_matrix(b, a)[:, 0] == 0).all()
        for loss in (
            cosine_similarity(a, b).sum(),
            cosine_similarity_matrix(a, b).sum(),
            cosine_similarity(a, a).sum(),
        ):
            (gradient,) = torch.autograd.grad(loss, a)
            assert gradient.isfinite().all()
            assert (gradient[0] == 0).all()

    def test_is_computed_in_fp32(self):
        half = vectors(5, 4, 3).bfloat16()
        torch.testing.assert_close(cosine_similarity(half, half), torch.ones(5))
        assert cosine_similarity_matrix(half, half).dtype == torch.float32


def reference_cosent(similarity: torch.Tensor, score: torch.Tensor, scale: float) -> torch.Tensor:
    """A loop over all pairs."""
    terms = [similarity.new_zeros(())]
    for i, j in itertools.product(range(len(score)), repeat=2):
        if score[i] > score[j]:
            terms.append(scale * (similarity[j] - similarity[i]))
    return log_sum(terms)


def quadratic_cosent(similarity: torch.Tensor, score: torch.Tensor, scale: float) -> torch.Tensor:
    """The matrix of all pairs, as in the code of Su 2022 and in earlier versions of sentence-transformers."""
    scaled = scale * similarity
    differences = scaled[:, None] - scaled[None, :]
    differences = differences - (1 - (score[:, None] < score[None, :]).to(scaled)) * 1e12
    return torch.logsumexp(torch.cat([scaled.new_zeros(1), differences.flatten()]), 0)


class TestCosent:
    @quickly
    @given(seeds, st.integers(1, 14), st.integers(1, 6), st.sampled_from([0.0, 1.0, 20.0, 50.0]))
    def test_is_the_sum_over_all_pairs(self, seed, rows, scores, scale):
        random = torch.Generator().manual_seed(seed)
        similarity = 2 * torch.rand(rows, generator=random) - 1
        score = torch.randint(scores, (rows,), generator=random).float() / 3  # few scores: ties
        same(lambda s: cosent_loss(s, score, scale), lambda s: reference_cosent(s, score, scale), similarity)
        same(lambda s: cosent_loss(s, score, scale), lambda s: quadratic_cosent(s, score, scale), similarity)

    @pytest.mark.parametrize("scale", [500.0, 3000.0, 1e5])
    @pytest.mark.parametrize("seed", range(5))
    def test_large_scales(self, scale, seed):
        random = torch.Generator().manual_seed(seed)
        similarity = torch.randint(-64, 65, (30,), generator=random) / 64  # exact in fp32, scaled too
        score = torch.randint(5, (30,), generator=random)
        same(lambda s: cosent_loss(s, score, scale), lambda s: reference_cosent(s, score, scale), similarity)

    def test_rows_that_are_in_order_cost_nothing_whatever_the_scale(self):
        similarity = torch.linspace(-1, 1, 9).requires_grad_()
        loss = cosent_loss(similarity, torch.arange(9), 1e4)
        assert loss == 0
        (gradient,) = torch.autograd.grad(loss, similarity)
        assert (gradient == 0).all()

    @pytest.mark.parametrize("scale", [1.0, 1e4])
    def test_two_rows_the_wrong_way_round(self, scale):
        similarity = torch.tensor([0.25, 0.75], requires_grad=True)
        loss = cosent_loss(similarity, torch.tensor([1, 0]), scale)
        torch.testing.assert_close(loss, F.softplus(torch.tensor(scale * 0.5)))
        (gradient,) = torch.autograd.grad(loss, similarity)
        pull = scale * torch.sigmoid(torch.tensor(scale * 0.5))
        torch.testing.assert_close(gradient, torch.stack([-pull, pull]))

    @pytest.mark.parametrize("rows", [0, 1, 4])
    def test_without_a_pair_in_order_it_is_0_and_so_is_its_gradient(self, rows):
        similarity = torch.linspace(-1, 1, rows).requires_grad_()
        loss = cosent_loss(similarity, torch.full((rows,), 0.1), 20.0)
        assert loss == 0
        (gradient,) = torch.autograd.grad(loss, similarity)
        assert (gradient == 0).all()

    @pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32, torch.float64])
    def test_labels_are_scores_too(self, dtype):
        similarity, label = torch.tensor([0.3, 0.1, -0.2, 0.8]), torch.tensor([1, 0, 1, 0])
        torch.testing.assert_close(
            cosent_loss(similarity, label.to(dtype), 20.0), reference_cosent(similarity, label, 20.0)
        )

    def test_many_rows(self):
        """4000 rows have 8 million pairs; running sums must not lose them."""
        random = torch.Generator().manual_seed(8)
        similarity = (2 * torch.rand(4000, generator=random) - 1) * 0.9
        score = torch.randint(6, (4000,), generator=random) / 5
        same(lambda s: cosent_loss(s, score, 20.0), lambda s: quadratic_cosent(s, score, 20.0), similarity)

    def test_does_not_depend_on_the_order_of_rows(self):
        similarity, score = torch.linspace(-0.9, 0.8, 12).sin(), torch.tensor([3, 1, 2] * 4)
        order = torch.randperm(12, generator=torch.Generator().manual_seed(9))
        torch.testing.assert_close(
            cosent_loss(similarity[order], score[order], 20.0), cosent_loss(similarity, score, 20.0)
        )

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore")
    def test_is_that_of_sentence_transformers(self):
        st_losses = pytest.importorskip("sentence_transformers.losses").CoSENTLoss
        a, b = vectors(25, 6, 10), vectors(25, 6, 11)
        score = torch.randint(6, (25,), generator=torch.Generator().manual_seed(12)) / 5
        truth = st_losses(None, scale=20.0).compute_loss_from_embeddings([a, b], score)
        torch.testing.assert_close(cosent_loss(cosine_similarity(a, b), score, 20.0), truth)


class TestOneRowAtATime:
    @quickly
    @given(seeds, st.integers(1, 10), st.sampled_from([0.0, 0.5, 2.0]))
    def test_contrastive(self, seed, rows, margin):
        random = torch.Generator().manual_seed(seed)
        similarity = 2 * torch.rand(rows, generator=random) - 1
        label = torch.randint(2, (rows,), generator=random)

        def reference(similarity):
            total = similarity.new_zeros(())
            for value, similar in zip(similarity, label.tolist(), strict=True):
                distance = 1 - value
                if similar:
                    total = total + distance**2 / 2
                elif distance < margin:
                    total = total + (margin - distance) ** 2 / 2
            return total

        same(lambda s: contrastive_loss(s, label, margin), reference, similarity)

    def test_contrastive_by_hand(self):
        similarity = torch.tensor([1.0, 0.5, 1.0, 0.75, 0.0])
        label = torch.tensor([1, 1, 0, 0, 0])
        torch.testing.assert_close(
            contrastive_loss(similarity, label, 0.5), torch.tensor(0 + 0.125 + 0.125 + 0.03125 + 0)
        )

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore")
    def test_contrastive_is_that_of_sentence_transformers(self):
        st_losses = pytest.importorskip("sentence_transformers.losses").ContrastiveLoss(None)
        a, b, label = vectors(9, 4, 0), vectors(9, 4, 1), torch.tensor([1, 0, 0] * 3)
        torch.testing.assert_close(
            contrastive_loss(cosine_similarity(a, b), label, 0.5) / 9,
            st_losses.compute_loss_from_embeddings([a, b], label),
        )

    @quickly
    @given(seeds, st.integers(1, 10))
    def test_cosine_regression(self, seed, rows):
        similarity, target = vectors(2, rows, seed)
        same(
            lambda s: cosine_mse_loss(s, target),
            lambda s: sum((x - y) ** 2 for x, y in zip(s, target.tolist(), strict=True)),
            similarity,
        )

    def test_parts_add_up(self):
        similarity, target = torch.linspace(-1, 1, 10), torch.linspace(1, 0, 10)
        label = (target > 0.4).long()
        cuts = slice(0, 3), slice(3, 10)
        torch.testing.assert_close(
            sum(cosine_mse_loss(similarity[c], target[c]) for c in cuts), cosine_mse_loss(similarity, target)
        )
        torch.testing.assert_close(
            sum(contrastive_loss(similarity[c], label[c], 0.5) for c in cuts),
            contrastive_loss(similarity, label, 0.5),
        )


def reference_in_batch(anchors, candidates, positive, false, margin, scale, symmetric):
    """A loop over rows and their other candidates, then over candidates and their other anchors."""

    def lost(positive_similarity, others):
        positive_similarity = scale * (positive_similarity - margin)
        return log_sum([positive_similarity, *(scale * other for other in others)]) - positive_similarity

    total = back = anchors.new_zeros(())
    for i, right in enumerate(positive):
        others = [n for n in range(len(candidates)) if n != right and not false[i][n]]
        total = total + lost(
            reference_cosine(anchors[i], candidates[right]),
            [reference_cosine(anchors[i], candidates[n]) for n in others],
        )
        others = [j for j in range(len(anchors)) if positive[j] != right and not false[j][right]]
        back = back + lost(
            reference_cosine(anchors[i], candidates[right]),
            [reference_cosine(anchors[j], candidates[right]) for j in others],
        )
    return (total + back) / 2 if symmetric else total


def batch_negatives(anchors, positives, margin, scale, mean_loss):
    """The loss of PaddleNLP's and bertorch's BatchNegModel, a mean over rows."""
    similarity = F.normalize(anchors) @ F.normalize(positives).t()
    similarity = scale * (similarity - margin * torch.eye(len(anchors)))
    rows = torch.arange(len(anchors))
    if mean_loss:
        return (F.cross_entropy(similarity, rows) + F.cross_entropy(similarity.t(), rows)) / 2
    return F.cross_entropy(similarity, rows)


class TestInBatch:
    @quickly
    @given(
        seeds,
        st.integers(1, 6),
        st.integers(1, 8),
        st.sampled_from([0.0, 0.2, 1.0]),
        st.sampled_from([1.0, 20.0]),
        st.sampled_from([0.0, 0.3, 1.0]),
        st.booleans(),
    )
    def test_is_the_formula(self, seed, rows, num_candidates, margin, scale, density, symmetric):
        """Positives may be shared, and the mask may cover them."""
        random = torch.Generator().manual_seed(seed)
        positive = torch.randint(num_candidates, (rows,), generator=random)
        false = torch.rand(rows, num_candidates, generator=random) < density
        same(
            lambda a, c: in_batch_negatives_loss(a, c, positive, false, margin, scale, symmetric),
            lambda a, c: reference_in_batch(
                a, c, positive.tolist(), false.tolist(), margin, scale, symmetric
            ),
            vectors(rows, 3, seed + 1),
            vectors(num_candidates, 3, seed + 2),
        )

    @pytest.mark.parametrize("symmetric", [False, True])
    @pytest.mark.parametrize("margin", [0.0, 0.2])
    def test_is_that_of_batch_negatives(self, symmetric, margin):
        a, b = vectors(8, 5, 1), vectors(8, 5, 2)
        actual = in_batch_negatives_loss(
            a, b, torch.arange(8), torch.zeros(8, 8, dtype=torch.bool), margin, 20.0, symmetric
        )
        torch.testing.assert_close(actual / 8, batch_negatives(a, b, margin, 20.0, symmetric))

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize("symmetric", [False, True])
    def test_is_that_of_sentence_transformers(self, symmetric):
        st_losses = pytest.importorskip("sentence_transformers.losses")
        loss = (
            st_losses.MultipleNegativesSymmetricRankingLoss
            if symmetric
            else st_losses.MultipleNegativesRankingLoss
        )
        a, b = vectors(8, 5, 1), vectors(8, 5, 2)
        actual = in_batch_negatives_loss(
            a, b, torch.arange(8), torch.zeros(8, 8, dtype=torch.bool), 0.0, 20.0, symmetric
        )
        torch.testing.assert_close(actual / 8, loss(None).compute_loss_from_embeddings([a, b], None))

    @pytest.mark.parametrize("symmetric", [False, True])
    def test_does_not_depend_on_the_order_of_rows_and_candidates(self, symmetric):
        random = torch.Generator().manual_seed(3)
        anchors, candidates, false = (
            vectors(6, 4, 4),
            vectors(9, 4, 5),
            torch.rand(6, 9, generator=random) < 0.3,
        )
        positive = torch.randperm(9, generator=random)[:6]
        summed = in_batch_negatives_loss(anchors, candidates, positive, false, 0.1, 20.0, symmetric)
        rows, columns = torch.randperm(6, generator=random), torch.randperm(9, generator=random)
        moved = in_batch_negatives_loss(
            anchors[rows],
            candidates[columns],
            columns.argsort()[positive[rows]],
            false[rows][:, columns],
            0.1,
            20.0,
            symmetric,
        )
        torch.testing.assert_close(moved, summed)

    @pytest.mark.parametrize("symmetric", [False, True])
    def test_what_is_masked_has_no_influence(self, symmetric):
        anchors, candidates = vectors(3, 4, 6), vectors(5, 4, 7).requires_grad_()
        false = torch.zeros(3, 5, dtype=torch.bool)
        false[:, 4] = True
        loss = in_batch_negatives_loss(anchors, candidates, torch.arange(3), false, 0.2, 20.0, symmetric)
        torch.testing.assert_close(
            loss,
            in_batch_negatives_loss(
                anchors, candidates[:4], torch.arange(3), false[:, :4], 0.2, 20.0, symmetric
            ),
        )
        (gradient,) = torch.autograd.grad(loss, candidates)
        assert gradient.isfinite().all()
        assert (gradient[4] == 0).all()
        assert (gradient[3] != 0).any()

    @pytest.mark.parametrize("symmetric", [False, True])
    def test_a_row_without_negatives_costs_nothing(self, symmetric):
        anchors = vectors(3, 4, 6).requires_grad_()
        loss = in_batch_negatives_loss(
            anchors,
            vectors(3, 4, 7),
            torch.arange(3),
            torch.ones(3, 3, dtype=torch.bool),
            0.2,
            20.0,
            symmetric,
        )
        assert loss == 0
        (gradient,) = torch.autograd.grad(loss, anchors)
        assert (gradient == 0).all()

    @pytest.mark.parametrize("symmetric", [False, True])
    @pytest.mark.parametrize("scale", [0.0, 1e-6, 1e4, 1e8])
    def test_extreme_scales_are_finite(self, scale, symmetric):
        anchors, candidates = vectors(5, 4, 8).requires_grad_(), vectors(7, 4, 9).requires_grad_()
        false = false_negative_mask(torch.arange(5), torch.arange(5, 12), torch.arange(5))
        loss = in_batch_negatives_loss(anchors, candidates, torch.arange(5), false, 0.2, scale, symmetric)
        assert loss.isfinite()
        assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss, (anchors, candidates)))

    def test_a_positive_that_two_rows_share_repels_neither_anchor(self):
        """Of three rows two have the same positive, so that this positive has one other anchor."""
        anchors, candidates = vectors(3, 4, 10), vectors(2, 4, 11)
        positive, false = torch.tensor([0, 0, 1]), torch.zeros(3, 2, dtype=torch.bool)
        s = 20 * cosine_similarity_matrix(anchors, candidates)
        forth = F.cross_entropy(s, positive, reduction="sum")
        zero = torch.zeros(1, dtype=torch.int64)
        back = sum(
            F.cross_entropy(s[remaining, n][None], zero)
            for remaining, n in (([0, 2], 0), ([1, 2], 0), ([2, 0, 1], 1))
        )
        torch.testing.assert_close(
            in_batch_negatives_loss(anchors, candidates, positive, false, 0.0, 20.0, True), (forth + back) / 2
        )


def reference_false_negatives(anchors, candidates, positive):
    false = [[False] * len(candidates) for _ in anchors]
    for i, anchor in enumerate(anchors):
        for n, text in enumerate(candidates):
            related = {anchor, candidates[positive[i]]} | {
                candidates[positive[j]] for j, other in enumerate(anchors) if other == anchor
            }
            false[i][n] = n != positive[i] and text in related
    return torch.tensor(false)


class TestFalseNegatives:
    @quickly
    @given(st.data(), st.integers(1, 8), st.integers(1, 10))
    def test_is_the_definition(self, data, rows, num_candidates):
        text = st.integers(-3, 6)
        anchors = data.draw(st.lists(text, min_size=rows, max_size=rows))
        candidates = data.draw(st.lists(text, min_size=num_candidates, max_size=num_candidates))
        positive = data.draw(st.lists(st.integers(0, num_candidates - 1), min_size=rows, max_size=rows))
        actual = false_negative_mask(torch.tensor(anchors), torch.tensor(candidates), torch.tensor(positive))
        assert actual.dtype == torch.bool
        assert torch.equal(actual, reference_false_negatives(anchors, candidates, positive))

    def mask_of(self, anchors: str, candidates: str, positive: list[int] | None = None) -> list[str]:
        """One letter a text; by default the first candidates are the positives."""
        positive = list(range(len(anchors))) if positive is None else positive
        ids = [torch.tensor([ord(text) for text in texts]) for texts in (anchors, candidates)]
        rows = false_negative_mask(*ids, torch.tensor(positive)).tolist()
        return ["".join("x" if false else "." for false in row) for row in rows]

    def test_all_different(self):
        assert self.mask_of("abc", "defgh") == ["....."] * 3

    def test_same_anchor_twice(self):
        assert self.mask_of("aab", "xyz") == [".x.", "x..", "..."]

    def test_same_positive_twice(self):
        assert self.mask_of("abc", "xxz") == [".x.", "x..", "..."]

    def test_a_candidate_that_is_the_anchor(self):
        assert self.mask_of("ab", "xa") == [".x", ".."]

    def test_same_texts_on_both_sides(self):
        """SimCSE: every text is its own positive, and one occurs twice."""
        assert self.mask_of("aba", "aba") == ["..x", "...", "x.."]

    def test_hard_negatives(self):
        """False: one equal to its own positive, and one equal to a positive of an anchor with two rows."""
        assert self.mask_of("aab", "xyz" + "xqy") == [".x." + "x.x", "x.." + "x.x", "..." + "..."]

    def test_positives_anywhere_among_the_candidates(self):
        assert self.mask_of("ab", "qxy", [2, 1]) == ["...", "..."]
        assert self.mask_of("aa", "qxy", [2, 1]) == [".x.", "..x"]
        assert self.mask_of("ab", "qx", [1, 1]) == ["..", ".."]

    def test_a_chain_goes_no_further_than_one_anchor(self):
        """x belongs to a and to b; y belongs to b; but y may still be a negative of a."""
        assert self.mask_of("abb", "xxy") == [".x.", "x.x", "xx."]

    def test_many_rows_take_little_memory(self):
        rows = torch.arange(1500) % 700
        false = false_negative_mask(rows, torch.cat([rows + 1000, rows]), torch.arange(1500))
        assert false.shape == (1500, 3000)
        assert false[0].nonzero().flatten().tolist() == [700, 1400, 1500, 2200, 2900]
