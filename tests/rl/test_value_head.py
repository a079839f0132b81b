"""The value head is float32 arithmetic, whatever surrounds it."""

import torch

from rlhf_prm.rl.critic import Critic

IDS = torch.ones(2, 3, dtype=torch.long)


def head(hidden: torch.Tensor) -> tuple[Critic, torch.Tensor]:
    """A critic whose exact values for ``hidden`` need more bits than bfloat16 has."""
    critic = Critic(hidden.size(-1), None)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        critic.head.weight.copy_(torch.randn(1, hidden.size(-1), generator=generator))
        critic.head.bias.fill_(0.8)
    exact = hidden.double() @ critic.head.weight.double().T + critic.head.bias.double()
    return critic, exact.squeeze(-1)


def test_autocast_does_not_round_values_or_their_gradient():
    hidden = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(0))
    critic, exact = head(hidden)
    with torch.autocast("cpu", torch.bfloat16):
        values = critic(hidden, IDS, IDS)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values.double(), exact, atol=1e-6, rtol=1e-6)
    assert (exact - exact.to(torch.bfloat16).double()).abs().max() > 1e-3  # what rounding would have cost
    values.sum().backward()
    torch.testing.assert_close(critic.head.weight.grad[0], hidden.sum((0, 1)), atol=1e-5, rtol=1e-5)


def test_weights_kept_in_bfloat16_are_multiplied_in_float32():
    """As in a DeepSpeed engine, which casts the module."""
    hidden = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    critic, _ = head(hidden.float())
    critic.to(torch.bfloat16)
    exact = hidden.double() @ critic.head.weight.double().T + critic.head.bias.double()
    values = critic(hidden, IDS, IDS)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values.double(), exact.squeeze(-1), atol=1e-5, rtol=1e-5)
