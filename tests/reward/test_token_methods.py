"""Methods that read token scores: worked by hand, against slow loops, and what padding and filters may not change."""

import math

import pytest
import torch

from reward import METHODS, TOKEN_METHODS, StepRollouts, step_to_token
from reward.methods.table import sections
from reward.token_methods.distil import distil
from reward.token_methods.prime import prime
from reward.token_methods.spro import spro
from reward.token_methods.trusted_tokens import trusted_tokens
from reward.trust import initial_trust

NAN = float("nan")


def rollouts_of(tokens, outcomes, group, lengths=None, padding=NAN, extra=0) -> StepRollouts:
    """Rows of token scores, cut into steps by ``lengths`` (default: one step each)."""
    lengths = lengths or [[len(row)] for row in tokens]
    steps, width = max(map(len, lengths)), max(map(len, tokens)) + extra
    return StepRollouts(
        step_scores=torch.full((len(tokens), steps), 0.5),
        step_mask=torch.tensor([[k < len(row) for k in range(steps)] for row in lengths]),
        step_lengths=torch.tensor([row + [0] * (steps - len(row)) for row in lengths]),
        outcome_rewards=torch.tensor(outcomes),
        num_generations=group,
        token_scores=torch.tensor([row + [padding] * (width - len(row)) for row in tokens]),
    )


def random_rollouts(seed=0, prompts=3, group=4) -> StepRollouts:
    draw = torch.Generator().manual_seed(seed)
    lengths = [
        torch.randint(1, 5, (int(torch.randint(1, 4, (1,), generator=draw)),), generator=draw).tolist()
        for _ in range(prompts * group)
    ]
    tokens = [torch.randn(sum(row), generator=draw).tolist() for row in lengths]
    outcomes = (torch.rand(prompts * group, generator=draw) < 0.5).float().tolist()
    return rollouts_of(tokens, outcomes, group, lengths, extra=2)


def test_prime_worked_by_hand():
    """β = .05, q = [.4, −.2, .6] right, [−.4, 0] wrong, no batch norm; the last token's score does not count."""
    q = [[0.4, -0.2, 0.6], [-0.4, 0.0]]
    batch = rollouts_of([[0.05 * x for x in row] for row in q], [1.0, 0.0], 2)
    found = prime(batch, batch_norm=False)
    wanted = torch.tensor([[0.754228, 0.712126, 0.724155], [-1.110291, -1.080218, 0.0]])
    torch.testing.assert_close(found, wanted, atol=2e-6, rtol=0)


def slow_prime(batch, w=5.0, v=5.0, norm=True, drop=True):
    """Loops over rollouts and tokens, as the published formulas read."""
    group, rows = batch.num_generations, []
    for scores, n in zip(batch.token_scores.tolist(), batch.token_counts.sum(1).tolist(), strict=True):
        row = [float(x) for x in scores[:n]]
        rows.append([0.0 if drop and t == n - 1 else x for t, x in enumerate(row)])
    if norm:
        largest = max(abs(sum(row[t:])) for row in rows for t in range(len(row)))
        rows = [[x / (largest + 1e-6) for x in row] for row in rows]
    returns = []
    for i, row in enumerate(rows):
        own = range(i // group * group, i // group * group + group)
        others = sum(sum(rows[j]) / len(rows[j]) for j in own) / (group - 1)
        outcomes = [batch.outcome_rewards[j].item() for j in own]
        outcome = outcomes[i % group] * group / (group - 1) - sum(outcomes) / (group - 1)
        rewards = [w * (x * group / (group - 1) - others) for x in row]
        rewards[-1] += v * outcome
        returns.append([sum(rewards[t:]) for t in range(len(row))])
    flat = [x for row in returns for x in row]
    mean = sum(flat) / len(flat)
    variance = sum((x - mean) ** 2 for x in flat) / (len(flat) - 1)
    return [[(x - mean) / math.sqrt(variance + 1e-8) for x in row] for row in returns]


@pytest.mark.parametrize("keywords", [{}, {"norm": False}, {"drop": False}, {"w": 0.0}, {"v": 1.0}])
def test_prime_equals_a_slow_loop(keywords):
    batch = random_rollouts()
    names = {"w": "process_weight", "v": "outcome_weight", "norm": "batch_norm", "drop": "drop_last"}
    found = prime(batch, **{names[name]: value for name, value in keywords.items()})
    for got, wanted in zip(found, slow_prime(batch, **keywords), strict=True):
        torch.testing.assert_close(got[: len(wanted)], torch.tensor(wanted), atol=1e-4, rtol=1e-4)
        assert not got[len(wanted) :].any()


def test_primes_filter_leaves_groups_out_of_everything():
    """A group that is all right teaches nothing, and the whitening of the other group is as if it were alone."""
    mixed = ([[0.1, 0.3], [0.2], [-0.4, 0.1], [0.0, 0.2, 0.1]], [1.0, 0.0, 1.0, 0.0])
    all_right = ([[5.0, 1.0], [-3.0], [2.0], [1.0]], [1.0, 1.0, 1.0, 1.0])
    both = rollouts_of(mixed[0] + all_right[0], mixed[1] + all_right[1], 4)
    found = prime(both, keep_from=0.2, keep_to=0.8)
    assert not found[4:].any()
    torch.testing.assert_close(found[:4], prime(rollouts_of(*mixed, 4)))


def test_prime_needs_a_group():
    with pytest.raises(ValueError, match="got 1, expected at least 2"):
        prime(rollouts_of([[0.1]], [1.0], 1))


def test_distil_worked_by_hand():
    """d = log π_T − log π: λ = 2, clipped at 1.5; the outcome part is the method's."""
    batch = rollouts_of([[0.5, -4.0], [1.0]], [1.0, 0.0], 2)
    base = step_to_token(METHODS["outcome"](batch), batch.step_lengths, 2)
    wanted = base + torch.tensor([[1.0, -3.0], [2.0, 0.0]])
    torch.testing.assert_close(distil(batch, teacher_weight=2.0, clip=1.5), wanted)
    assert torch.equal(distil(batch, teacher_weight=0.0), base)


def test_distil_stands_on_any_method():
    batch = random_rollouts(1)
    per_step = METHODS["immediate"](batch, process_weight=0.7)
    immediate = step_to_token(per_step, batch.token_counts, batch.token_scores.shape[1])
    found = distil(batch, teacher_weight=0.0, method="immediate", method_kwargs={"process_weight": 0.7})
    assert torch.equal(found, immediate)
    with pytest.raises(ValueError, match="'trusted', which remembers"):
        distil(batch, method="trusted")
    with pytest.raises(ValueError, match="clip: got 0"):
        distil(batch, clip=0.0)


def test_spro_worked_by_hand():
    """R = [.1, .3], [.5]: at token 1 the mean is .3, at token 2 only one rollout is left."""
    batch = rollouts_of([[1.0, 2.0], [5.0]], [0.0, 0.0], 2)
    torch.testing.assert_close(spro(batch, beta=0.1), torch.tensor([[-0.2, 0.0], [0.2, 0.0]]))


def test_spro_equals_a_slow_loop():
    batch = random_rollouts(2)
    found, group = spro(batch, beta=0.3), batch.num_generations
    counts = batch.token_counts.sum(1).tolist()
    outcome = METHODS["outcome"](batch)[:, 0].tolist()
    for i in range(len(counts)):
        own = range(i // group * group, i // group * group + group)
        for t in range(counts[i]):
            so_far = [0.3 * batch.token_scores[j, : t + 1].sum().item() for j in own if counts[j] > t]
            wanted = outcome[i] + 0.3 * batch.token_scores[i, : t + 1].sum().item() - sum(so_far) / len(so_far)
            assert found[i, t].item() == pytest.approx(wanted, abs=1e-5)


def test_trusted_tokens_trusts_scores_that_go_along_with_the_outcome():
    """Right rollouts have positive tokens: trust 1 and steps told apart; turned around: outcome only."""
    tokens, lengths, outcomes = [], [], []
    for i in range(256):
        right = i % 2 == 0
        tokens.append([0.02, 0.02, 0.01] if right else [0.02, -0.03, -0.01])
        lengths.append([1, 2])
        outcomes.append(float(right))
    good = rollouts_of(tokens, outcomes, 4, lengths)
    bad = rollouts_of([[-x for x in row] for row in tokens], outcomes, 4, lengths)
    plain = step_to_token(METHODS["outcome"](good), good.step_lengths, 3)
    found, memory = trusted_tokens(good, initial_trust())
    assert set(memory) == set(initial_trust())
    credit = found - plain
    assert not credit[:, 0].abs().gt(1e-6).any()  # the first step is alike in all
    assert (credit[::2, 1] > 0.1).all() and (credit[1::2, 2] < -0.1).all()
    torch.testing.assert_close(credit[:, 1], credit[:, 2])  # all tokens of a step alike
    torch.testing.assert_close(trusted_tokens(bad, initial_trust())[0], plain)
    larger = rollouts_of([[1000 * x for x in row] for row in tokens], outcomes, 4, lengths)
    torch.testing.assert_close(trusted_tokens(larger, initial_trust())[0], found, atol=1e-4, rtol=1e-4)


def called(name, batch):
    method = TOKEN_METHODS[name]
    return method(batch, initial_trust())[0] if hasattr(method, "initial_memory") else method(batch)


@pytest.mark.parametrize("name", TOKEN_METHODS)
def test_padding_never_matters_and_the_docstring_is_whole(name):
    batch = random_rollouts(3)
    found = called(name, batch)
    clean = StepRollouts(**{**vars(batch), "token_scores": batch.token_scores.nan_to_num(nan=7.0)})
    assert torch.equal(called(name, clean), found)
    assert found.dtype == torch.float32 and found.isfinite().all() and not found[~batch.token_mask].any()
    assert TOKEN_METHODS[name].per_token and all(sections(TOKEN_METHODS[name]).values())


@pytest.mark.parametrize("name", TOKEN_METHODS)
def test_a_prm_of_steps_is_not_enough(name):
    batch = random_rollouts(4)
    with pytest.raises(ValueError, match="token_scores: got none"):
        called(name, StepRollouts(**{**vars(batch), "token_scores": None}))


def test_token_scores_out_of_order_are_refused():
    batch = rollouts_of([[0.1, 0.2], [0.3]], [1.0, 0.0], 2)
    for scores, told in (
        (torch.zeros(2, 1), "got shape"),
        (torch.tensor([[0.1, NAN], [0.0, 0.0]]), "rollout 0, token 1"),
        (torch.tensor([[0.1, 0.0], [math.inf, 0.0]]), "rollout 1, token 0"),
    ):
        with pytest.raises(ValueError, match=told):
            StepRollouts(**{**vars(batch), "token_scores": scores})
