"""Shapings by hand; padding; the registry; and a user's own method from a file outside the project."""

from pathlib import Path

import pytest
import torch

import reward
from reward import METHODS, SHAPINGS, resolve

NAN = float("nan")
MASK = torch.tensor([[True, True, True], [True, False, False]])
P = torch.tensor([[0.9, 0.2, 0.6], [0.4, NAN, 1e9]])


def close(got, wanted):
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, torch.tensor(wanted), rtol=1e-5, atol=1e-6)


def test_by_hand():
    close(reward.raw_scores(P, MASK), [[0.9, 0.2, 0.6], [0.4, 0.0, 0.0]])
    close(reward.centered_scores(P, MASK), [[0.8, -0.6, 0.2], [-0.2, 0.0, 0.0]])
    close(reward.clip_shaping(P, MASK, threshold=0.7), [[0.0, -0.5, -0.1], [-0.3, 0.0, 0.0]])
    close(reward.delta_shaping(P, MASK), [[0.7, -0.4, 0.6], [0.4, 0.0, 0.0]])
    close(reward.progress_shaping(P, MASK, alpha=2.0), [[0.8, -1.4, 0.8], [-0.2, 0.0, 0.0]])
    close(reward.potential_shaping(P, MASK, gamma=0.5), [[-0.05, -0.8, -0.2], [-0.5, 0.0, 0.0]])
    starts = torch.tensor([0.1, 0.3])
    close(reward.progress_shaping(P, MASK, initial=starts), [[0.8, -0.7, 0.4], [0.1, 0.0, 0.0]])
    close(reward.potential_shaping(P, MASK, initial=starts), [[0.8, -0.7, -0.2], [-0.3, 0.0, 0.0]])


def test_soft_min_by_hand():
    scores = torch.tensor([[0.8, 0.2], [-0.6, NAN]])
    mask = torch.tensor([[True, True], [True, False]])
    ln3 = 1.0986122886681098
    close(reward.soft_min_shaping(scores, mask, temperature=0.6 / ln3), [[0.2, 0.15], [-0.6, 0.0]])
    with pytest.raises(ValueError, match=r"temperature: got -1.0, expected > 0"):
        reward.soft_min_shaping(scores, mask, temperature=-1.0)


@pytest.mark.parametrize("name", SHAPINGS)
def test_padding_never_leaks(name):
    p = torch.rand(5, 6)
    mask = torch.arange(6) < torch.tensor([[6], [1], [3], [5], [2]])
    clean = SHAPINGS[name](p.masked_fill(~mask, 0.0), mask)
    assert not clean[~mask].any() and clean[mask].any()
    for garbage in (NAN, 1e9, -1e9, float("inf")):
        assert torch.equal(SHAPINGS[name](p.masked_fill(~mask, garbage), mask), clean)


def test_the_registry_holds_the_public_names():
    for name, shaping in SHAPINGS.items():
        assert getattr(reward, name) is shaping
    assert {name for name in dir(reward) if name.endswith("_shaping")} <= set(SHAPINGS)
    files = {file.stem for file in Path(reward.methods.__path__[0]).glob("[a-z]*.py")} - {"table"}
    assert {method.__module__.rpartition(".")[2] for method in METHODS.values()} == files


def test_a_users_own_method_and_shaping_by_dotted_path(tmp_path, monkeypatch):
    (tmp_path / "my_credit.py").write_text(
        "import torch\n"
        "from reward import METHODS, discounted_returns\n\n"
        "def squared(step_scores, step_mask, *, power=2):\n"
        "    return torch.where(step_mask, step_scores**power, 0)\n\n"
        "def twice(rollouts, *, factor=2.0):\n"
        "    rewards = squared(rollouts.step_scores, rollouts.step_mask)\n"
        "    return factor * METHODS['outcome'](rollouts) + discounted_returns(rewards, rollouts.step_mask)\n"
    )
    with pytest.raises(ValueError, match=r"cannot be imported .* is its folder on PYTHONPATH"):
        resolve("my_credit.twice", METHODS, "method")
    monkeypatch.syspath_prepend(tmp_path)
    method = resolve("my_credit.twice", METHODS, "method")
    rollouts = reward.StepRollouts(P, MASK, MASK.long(), torch.tensor([1.0, 0.0]), 2)
    a = float(METHODS["outcome"](rollouts)[0, 0])
    close(method(rollouts, factor=3.0), [[3 * a + 1.21, 3 * a + 0.4, 3 * a + 0.36], [-3 * a + 0.16, 0.0, 0.0]])
    close(resolve("my_credit.squared", SHAPINGS, "shaping")(P, MASK), [[0.81, 0.04, 0.36], [0.16, 0.0, 0.0]])
    assert resolve("pure", METHODS, "method") is METHODS["pure"]
    with pytest.raises(ValueError, match=rf"unknown method 'pur': expected one of {', '.join(sorted(METHODS))}.*path"):
        resolve("pur", METHODS, "method")
    with pytest.raises(ValueError, match=r"my_credit.thrice.* cannot be imported"):
        resolve("my_credit.thrice", METHODS, "method")
