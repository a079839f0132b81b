"""Losses of PRMTrainer against hand-worked numbers and slow loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_prm.prm.losses import (
    hard_cross_entropy,
    pcrm_pairwise,
    pqm_ranking,
    soft_mean_squared_error,
    step_values,
)


def test_cross_entropy_by_hand():
    logits = torch.tensor([[[0.0, math.log(3)], [0.0, math.log(3)], [5.0, 5.0]]])  # p(right) = 3/4, 3/4, 1/2
    losses = hard_cross_entropy(logits, torch.tensor([[True, False, True]]), torch.tensor([[True, True, False]]))
    torch.testing.assert_close(losses, torch.tensor([[math.log(4 / 3), math.log(4), 0.0]]))


def test_squared_error_by_hand():
    logits = torch.tensor([[[0.0, math.log(3)], [math.log(4), 0.0], [0.0, 9.0]]])  # p(right) = .75, .2
    losses = soft_mean_squared_error(logits, torch.tensor([[0.5, 0.2, math.nan]]), torch.tensor([[True, True, False]]))
    torch.testing.assert_close(losses, torch.tensor([[0.0625, 0.0, 0.0]]))


def test_step_value_is_the_log_odds_of_the_score():
    logits = torch.randn(4, 3, 2)
    torch.testing.assert_close(step_values(logits).sigmoid(), logits.softmax(-1)[..., 1])


def slow_pqm(values: list[float], labels: list[bool], zeta: float) -> float:
    """METHODS' formula, term by term."""
    wrong = [value for value, label in zip(values, labels, strict=True) if not label]
    right = [value for value, label in zip(values, labels, strict=True) if label]
    ladder = ([0.0] if wrong else []) + right
    wrong_mass = sum(math.exp(value + zeta) for value in wrong)
    total = 0.0
    for position, value in enumerate(ladder):
        denominator = sum(math.exp(lower) for lower in ladder[: position + 1]) + wrong_mass
        total -= math.log(math.exp(value) / denominator)
    return total / max(len(right), 1)


def test_pqm_by_hand():
    # right step of value 1, then a wrong one of value −2, ζ = 4; virtual right step of value 0:
    # t=0: log(1 + e²) = 2.126928; t=1: log((1 + e + e²)/e) = 1.407606; |C| = 1
    loss = pqm_ranking(torch.tensor([[1.0, -2.0]]), torch.tensor([[True, False]]), torch.tensor([[True, True]]))
    torch.testing.assert_close(loss, torch.tensor([2.126928 + 1.407606]))


def test_pqm_without_a_wrong_step_has_no_virtual_step():
    # values 0, 0: t=1: log(1/1) = 0; t=2: log 2; mean over two right steps
    mask = torch.ones(1, 2, dtype=torch.bool)
    torch.testing.assert_close(pqm_ranking(torch.zeros(1, 2), mask, mask), torch.tensor([math.log(2) / 2]))


def test_pqm_without_a_right_step_pushes_the_wrong_ones_down():
    values = torch.tensor([[0.0, 0.0]], requires_grad=True)
    mask = torch.ones(1, 2, dtype=torch.bool)
    loss = pqm_ranking(values, ~mask, mask, zeta=0.0)
    torch.testing.assert_close(loss.detach(), torch.tensor([math.log(3)]))  # log(1 + e⁰ + e⁰)
    loss.sum().backward()
    torch.testing.assert_close(values.grad, torch.full((1, 2), 1 / 3))


steps = st.lists(st.tuples(st.floats(-6, 6), st.booleans()), min_size=1, max_size=6)


@settings(deadline=None, max_examples=150)
@given(st.lists(steps, min_size=1, max_size=4), st.floats(0, 6))
def test_pqm_equals_the_slow_formula(rows, zeta):
    width = max(len(row) for row in rows) + 1  # at least one padded cell in every row
    values = torch.full((len(rows), width), 1e9)
    labels = torch.ones(len(rows), width, dtype=torch.bool)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for index, row in enumerate(rows):
        values[index, : len(row)] = torch.tensor([value for value, _ in row])
        labels[index, : len(row)] = torch.tensor([label for _, label in row])
        mask[index, : len(row)] = True
    values.requires_grad_()
    loss = pqm_ranking(values, labels, mask, zeta=zeta)
    expected = [slow_pqm([v for v, _ in row], [label for _, label in row], zeta) for row in rows]
    torch.testing.assert_close(loss.detach(), torch.tensor(expected), rtol=1e-4, atol=1e-4)
    loss.sum().backward()
    assert values.grad.isfinite().all() and (values.grad[~mask] == 0).all()


def test_pcrm_by_hand_and_its_optimum():
    # Δ = 1; δ* = 6/(0.999 + 0.001) = 6: −log σ(1) − log σ(5) = 0.313262 + 0.006715
    one = torch.ones(1)
    torch.testing.assert_close(pcrm_pairwise(one, 0 * one, 0.999 * one), torch.tensor([0.313262 + 0.006715]))
    margins = torch.linspace(0, 6, 601)
    losses = pcrm_pairwise(margins, torch.zeros(601), torch.full((601,), 0.999))
    assert margins[losses.argmin()].item() == pytest.approx(3.0, abs=0.01)  # symmetric between 0 and δ*
