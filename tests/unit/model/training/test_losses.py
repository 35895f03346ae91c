"""Each loss against its formula, its gradient, and what it must prefer."""

from __future__ import annotations

import pytest
import torch

from reckg.model.training import losses
from reckg.model.training.batches import sample_items
from tests import model_references as slow


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("at_once", [1 << 19, 1, 20])
def test_softmax_loss_equals_its_formula_for_targets_that_share_a_row(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(losses.SCORES_AT_ONCE, "cpu", at_once)
    users, items, target = torch.randn(4, 5), torch.randn(9, 5), torch.tensor([3, 0, 8, 8, 1, 2, 4])
    first, of = torch.tensor([0, 3, 4, 6]), [0, 0, 0, 1, 2, 2, 3]
    rows = (users @ items.T)[of].tolist()
    expected = slow.slow_softmax_loss(rows, target.tolist())
    assert losses.softmax_loss(users, items, target, first).item() == pytest.approx(expected, rel=1e-5)
    a, b = users.double().requires_grad_(), items.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda *x: 3 * losses.softmax_loss(*x, target, first), (a, b))


def test_softmax_loss_stays_finite_with_large_scores() -> None:
    users, items, first = torch.tensor([[1e4]]), torch.tensor([[1.0], [0.0], [-1.0]]), torch.tensor([0])
    assert losses.softmax_loss(users, items, torch.tensor([0]), first).item() == pytest.approx(0, abs=1e-4)
    assert losses.softmax_loss(users, items, torch.tensor([2]), first).item() == pytest.approx(2e4, rel=1e-5)


def test_softmax_loss_adds_up_in_float32_where_products_are_bfloat16() -> None:
    users, items = torch.randn(40, 8), torch.randn(300, 8, requires_grad=True)
    target, first = torch.randint(300, (80,)), torch.arange(0, 80, 2)
    (gradient,) = torch.autograd.grad(losses.softmax_loss(users, items, target, first), items)
    with torch.autocast("cpu", torch.bfloat16):
        found = losses.softmax_loss(users, items, target, first)
    scores = (users.bfloat16() @ items.bfloat16().T).float()
    own = (users.repeat_interleave(2, 0) * items[target]).sum(1)
    expected = (scores.logsumexp(1).repeat_interleave(2) - own).mean().item()
    assert found.dtype == torch.float32 and found.item() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(torch.autograd.grad(found, items)[0], gradient, rtol=0.05, atol=1e-3)


def test_sampled_softmax_loss_equals_its_formula() -> None:
    positive, negative = torch.randn(5), torch.randn(5, 8)
    hit, log_count = torch.rand(5, 8) < 0.3, torch.randn(8)
    for correction in (log_count, None):
        expected = slow.slow_sampled_softmax_loss(
            positive.tolist(), negative.tolist(), hit.tolist(), [0.0] * 8 if correction is None else correction.tolist()
        )
        found = losses.sampled_softmax_loss(positive.unsqueeze(1), negative, hit, correction).item()
        assert found == pytest.approx(5 * expected, rel=1e-5)


def test_in_the_sampled_softmax_a_users_positives_meet_each_other() -> None:
    positive, negative = torch.tensor([[0.3, -0.2, 0.9], [0.5, -torch.inf, -torch.inf]]), torch.randn(2, 4)
    hit = torch.tensor([[False, True, False, False], [False] * 4])
    left = negative[0][~hit[0]].tolist()
    rows = [[0.3, -0.2, 0.9, *left]] * 3 + [[0.5, *negative[1].tolist()]]
    expected = sum(slow.log_sum_exp(row) for row in rows) - (0.3 - 0.2 + 0.9 + 0.5)
    assert losses.sampled_softmax_loss(positive, negative, hit, None).item() == pytest.approx(expected, rel=1e-5)


def test_a_positive_that_only_ever_meets_itself_has_no_loss_and_no_gradient() -> None:
    positive = torch.randn(2, 1, requires_grad=True)
    negative = positive.detach().repeat(1, 3)
    loss = losses.sampled_softmax_loss(positive, negative, torch.ones(2, 3, dtype=torch.bool), torch.randn(3))
    loss.backward()
    assert loss.item() == 0 and positive.grad is not None and not positive.grad.any()


def test_the_correction_brings_the_sampled_loss_to_the_full_softmax() -> None:
    """Skewed sampling, and scores that rise with it: without the correction the loss is far off."""
    n_items, n_samples, draws = 40, 400, 200
    popularity = torch.arange(1, n_items + 1).float() ** 2
    popularity /= popularity.sum()
    scores = 0.8 * torch.randn(6, n_items) + popularity.log()
    target = torch.tensor([0, 3, 11, 25, 33, 39])
    full = torch.nn.functional.cross_entropy(scores, target).item()
    generator = torch.Generator().manual_seed(1)
    positive = scores[torch.arange(6), target].unsqueeze(1)
    found: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(draws):
        items, log_count = sample_items(popularity, n_samples, generator)
        for corrected in found:
            loss = losses.sampled_softmax_loss(
                positive, scores[:, items], target[:, None] == items, log_count if corrected else None
            )
            found[corrected].append(loss.item() / 6)
    mean = {corrected: sum(values) / draws for corrected, values in found.items()}
    assert mean[True] == pytest.approx(full, abs=0.02)
    assert abs(mean[False] - full) > 1


def test_bpr_and_transr_loss_equal_minus_log_sigmoid() -> None:
    better, worse = torch.randn(7), torch.randn(7)
    expected = slow.slow_pair_loss(better.tolist(), worse.tolist())
    assert losses.bpr_loss(better, worse).item() == pytest.approx(expected, rel=1e-5)
    # A distance is better the lower it is.
    assert losses.transr_loss(-better, -worse).item() == pytest.approx(expected, rel=1e-5)
    assert losses.bpr_loss(worse, better).item() != pytest.approx(expected, rel=1e-3)


def test_pair_losses_do_not_overflow() -> None:
    assert losses.bpr_loss(torch.tensor([-500.0]), torch.tensor([500.0])).item() == pytest.approx(1000)
    assert losses.bpr_loss(torch.tensor([500.0]), torch.tensor([-500.0])).item() == 0


def test_relation_loss_is_cross_entropy_over_the_relations() -> None:
    logits, relation = torch.randn(8, 5), torch.randint(5, (8,))
    expected = slow.slow_softmax_loss(logits.tolist(), relation.tolist())
    assert losses.relation_loss(logits, relation).item() == pytest.approx(expected, rel=1e-5)


def test_text_alignment_loss_equals_its_formula_and_does_not_see_lengths() -> None:
    text, node = torch.randn(5, 4), torch.randn(5, 4)
    expected = slow.slow_text_alignment_loss(text.tolist(), node.tolist(), 0.3)
    assert losses.text_alignment_loss(text, node, 0.3).item() == pytest.approx(expected, rel=1e-4)
    assert losses.text_alignment_loss(3 * text, 0.1 * node, 0.3).item() == pytest.approx(expected, rel=1e-4)
    assert (
        losses.text_alignment_loss(node, node, 0.01).item()
        < 0.01
        < losses.text_alignment_loss(-node, node, 0.01).item()
    )


def test_l2_loss_is_half_the_mean_squared_norm_summed_over_its_arguments() -> None:
    users, items = torch.randn(5, 4), torch.randn(3, 4)
    assert losses.l2_loss(users, items).item() == pytest.approx(
        slow.slow_l2_loss(users.tolist(), items.tolist()), rel=1e-5
    )
    assert losses.l2_loss(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).item() == pytest.approx(25 / 2 / 2)


def test_every_loss_has_the_gradient_that_finite_differences_give() -> None:
    double = {"dtype": torch.float64, "requires_grad": True}
    a, b = torch.randn(4, **double), torch.randn(4, **double)  # type: ignore[call-overload]
    matrix, other = torch.randn(4, 3, **double), torch.randn(4, 3, **double)  # type: ignore[call-overload]
    target, hit = torch.tensor([0, 2, 1, 1]), torch.tensor([[True, False, False]] * 4)
    check = torch.autograd.gradcheck
    assert check(lambda p, n: losses.sampled_softmax_loss(p, n, hit, torch.zeros(3).double()), (a[:, None], matrix))
    assert check(losses.bpr_loss, (a, b))
    assert check(losses.transr_loss, (a, b))
    assert check(lambda s: losses.relation_loss(s, target), (matrix,))
    assert check(lambda t, n: losses.text_alignment_loss(t, n, 0.5), (matrix, other))
    assert check(losses.l2_loss, (matrix, other))
