"""Losses of PRMTrainer against hand-worked numbers and slow loops."""

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from rlhf_prm.prm_training.losses import (
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
    """The published formula, term by term; the virtual step is in every denominator."""
    wrong_mass = sum(math.exp(value + zeta) for value, label in zip(values, labels, strict=True) if not label)
    right = [value for value, label in zip(values, labels, strict=True) if label]
    terms = [-math.log(1 / (1 + wrong_mass))] if len(right) < len(values) else []
    for position, value in enumerate(right):
        denominator = sum(math.exp(lower) for lower in right[: position + 1]) + 1 + wrong_mass
        terms.append(-math.log(math.exp(value) / denominator))
    return sum(terms) / len(terms)


@pytest.mark.parametrize(
    ("values", "labels", "loss", "gradient"),
    [  # ζ = 4; worked by hand with the authors' ε = 1e-5 in the denominators, hence the tolerance
        ([0.0], [1], 0.693152, [-0.5]),  # −log σ(0)
        ([0.0, 0.0], [1, 1], 0.895884, [-0.0833, -0.3333]),
        ([1.0, 2.0], [1, 1], 0.360436, [-0.0121, -0.1674]),
        ([0.0], [0], 4.018150, [0.982]),  # log(1 + e⁴)
        ([0.0, 0.0], [0, 0], 4.702263, [0.4955, 0.4955]),
        ([0.0, 0.0], [1, 0], 4.027063, [-0.4912, 0.9733]),
        ([1.0, -4.0], [1, 0], 0.622300, [-0.2119, 0.3560]),
        ([0.0, 0.0, 0.0], [1, 1, 0], 4.035872, [-0.3217, -0.3275, 0.9649]),
    ],
)
def test_pqm_by_hand(values, labels, loss, gradient):
    q = torch.tensor([[*values, 7.0]], requires_grad=True)  # and a masked step
    label = torch.tensor([[*labels, 1]], dtype=torch.bool)
    mask = torch.tensor([[True] * len(values) + [False]])
    found = pqm_ranking(q, label, mask)
    found.sum().backward()
    torch.testing.assert_close(found.detach(), torch.tensor([loss]), rtol=0, atol=2e-5)
    torch.testing.assert_close(q.grad, torch.tensor([[*gradient, 0.0]]), rtol=0, atol=1e-4)


def test_pqm_of_one_right_step_is_its_log_likelihood():
    values = torch.tensor([[-3.0], [0.5], [8.0]])
    mask = torch.ones(3, 1, dtype=torch.bool)
    torch.testing.assert_close(pqm_ranking(values, mask, mask), -torch.nn.functional.logsigmoid(values[:, 0]))


def test_pqm_survives_values_whose_exponential_does_not():
    values = torch.tensor([[200.0, 150.0], [-200.0, 200.0]], requires_grad=True)
    loss = pqm_ranking(values, torch.tensor([[True, True], [True, False]]), torch.ones(2, 2, dtype=torch.bool))
    # row 1: log(1 + e^-200) = 0 and log(e^200/e^150) = 50; row 2: 204 for the virtual step, 404 for the right one
    torch.testing.assert_close(loss.detach(), torch.tensor([25.0, 304.0]))
    loss.sum().backward()
    assert values.grad.isfinite().all()


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
