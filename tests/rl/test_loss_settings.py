"""Every setting of TRL's loss, with advantages of tokens: what reaches a token is what TRL gives it for that advantage.

The loss runs on made-up log-probabilities that stand in for the forward, so that their gradient can be read.
"""

from contextlib import contextmanager

import pytest
import torch
from trl import GRPOTrainer

from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.rl.ppo import ProcessPPOTrainer
from rlhf_prm.rl.ppo_config import ProcessPPOConfig
from rlhf_prm.rl.sequence_ratios import gspo_token_old_log_probs
from tests.tiny import DigitVerifier, HashScorer, tiny_config, tiny_dataset, tiny_policy, tiny_tokenizer

MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]])
LOG_PROBS = -torch.tensor([[0.3, 1.1, 2.0, 0.7], [0.9, 0.2, 1.6, 5.0], [0.4, 1.3, 5.0, 5.0]])
DRIFT = torch.tensor([[0.1, -0.3, 0.4, 0.2], [-0.5, 0.3, -0.2, 9.0], [0.05, 0.15, 9.0, 9.0]])  # log π − log π_old
REFERENCE = LOG_PROBS + torch.tensor([[0.2, -0.1, 0.3, 0.0], [0.1, 0.4, -0.2, 0.0], [-0.3, 0.2, 0.0, 0.0]])
ENTROPIES = torch.tensor([[0.2, 1.5, 0.9, 0.1], [2.0, 0.3, 1.1, 0.0], [0.6, 0.8, 0.0, 0.0]])
VLLM_RATIOS = torch.tensor([[0.9, 1.2, 1.0, 0.7], [1.1, 0.0, 1.3, 1.0], [0.8, 1.0, 1.0, 1.0]])
A, B = 1.5, -0.7
TOKEN_ADVANTAGES = torch.tensor([[A, B, A, B], [B, B, A, 0.0], [A, B, 0.0, 0.0]])


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    made = ProcessGRPOTrainer(
        model=tiny_policy(),
        args=tiny_config(tmp_path_factory.mktemp("loss"), method="immediate"),
        train_dataset=tiny_dataset(8),
        processing_class=tiny_tokenizer(),
        step_scorer=HashScorer(),
        verifier=DigitVerifier(),
    )
    made.model.train()
    made.current_gradient_accumulation_steps = 1
    return made


@pytest.fixture(scope="module")
def ppo_trainer(tmp_path_factory):
    made = ProcessPPOTrainer(
        model=tiny_policy(),
        args=tiny_config(tmp_path_factory.mktemp("ppo"), ProcessPPOConfig, critic="detached", num_generations=1),
        train_dataset=tiny_dataset(8),
        processing_class=tiny_tokenizer(),
        step_scorer=HashScorer(),
        verifier=DigitVerifier(),
    )
    made.model.train()
    made.current_gradient_accumulation_steps = 1
    return made


def set_all(trainer, settings, monkeypatch):
    """Attributes of the trainer, its args, or both, wherever TRL reads the setting."""
    for name, value in settings.items():
        assert hasattr(trainer.args, name) or hasattr(trainer, name), name
        for owner in (trainer.args, trainer):
            if hasattr(owner, name):
                monkeypatch.setattr(owner, name, value)


@pytest.fixture
def configured(trainer, monkeypatch):
    """The trainer with the settings of one case."""

    def made(settings):
        set_all(trainer, settings, monkeypatch)
        return trainer

    return made


def gradient(
    trainer, loss_of, advantages: torch.Tensor, *, drift=DRIFT, **more: torch.Tensor
) -> tuple[float, torch.Tensor]:
    """Loss, and its gradient by the log-probabilities."""
    log_probs = LOG_PROBS.clone().requires_grad_()
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (log_probs, ENTROPIES, None)
    inputs = {
        "prompt_ids": torch.ones(3, 2, dtype=torch.long),
        "prompt_mask": torch.ones(3, 2, dtype=torch.long),
        "completion_ids": torch.ones(3, 4, dtype=torch.long),
        "completion_mask": MASK,
        "advantages": advantages,
        "old_per_token_logps": LOG_PROBS - drift,
        "ref_per_token_logps": REFERENCE,
        "importance_sampling_ratio": VLLM_RATIOS,
        "num_items_in_batch": MASK.sum(),
        **more,
    }
    try:
        loss = loss_of(trainer.model, inputs)
    finally:
        del trainer._get_per_token_logps_and_entropies
    loss.backward()
    return loss.item(), log_probs.grad


LOSSES = ("grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo", "vespo")
CLIPPED = ("grpo", "dapo", "luspo")
SETTINGS = [
    *({"loss_type": loss, "importance_sampling_level": level} for loss in LOSSES for level in ("token", "sequence")),
    *({"loss_type": loss, "delta": 1.15, "epsilon_high": 0.28, "epsilon_low": 0.1} for loss in CLIPPED),
    {"delta": 1.1, "epsilon_high": 0.05, "importance_sampling_level": "sequence"},
    {"loss_type": "sapo", "sapo_temperature_pos": 0.7, "sapo_temperature_neg": 2.0},
    {"loss_type": "cispo", "epsilon_high": 5.0, "importance_sampling_level": "sequence"},
    {"loss_type": "vespo", "vespo_k_pos": 1.0, "vespo_lambda_pos": 2.0, "vespo_k_neg": 2.5, "vespo_lambda_neg": 1.5},
    {"top_entropy_quantile": 0.5},
    {"entropy_coef": 0.1, "_entropy_bonus_enabled": True},
    {"beta": 0.04},
    {"beta": 0.04, "use_bias_correction_kl": False},
    {"beta": 0.04, "use_bias_correction_kl": False, "importance_sampling_level": "sequence"},
    {"use_vllm": True},
    {"use_vllm": True, "loss_type": "vespo"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: ",".join(f"{k}={v}" for k, v in s.items()))
def test_a_token_learns_as_if_its_rollout_had_its_advantage(configured, settings):
    """Gradient at a token of advantage a = TRL's own there when all tokens of its rollout have a; and the loss."""
    trainer = configured(settings)
    of_trl = lambda model, inputs: GRPOTrainer._compute_loss(trainer, model, inputs)  # noqa: E731
    _, dense = gradient(trainer, trainer._compute_loss, TOKEN_ADVANTAGES)
    for advantage in (A, B):
        _, constant = gradient(trainer, of_trl, torch.full((3,), advantage))
        tokens = (advantage == TOKEN_ADVANTAGES) & MASK.bool()
        torch.testing.assert_close(dense[tokens], constant[tokens], atol=1e-6, rtol=1e-5)
    assert dense[MASK.bool()].abs().max() > 1e-3 and dense[~MASK.bool()].eq(0).all()
    per_rollout = torch.tensor([A, B, A])
    ours, our_gradient = gradient(trainer, trainer._compute_loss, (per_rollout[:, None] * MASK).float())
    theirs, their_gradient = gradient(trainer, of_trl, per_rollout)
    assert ours == pytest.approx(theirs, abs=1e-6)
    torch.testing.assert_close(our_gradient, their_gradient, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [{"top_entropy_quantile": 0.5}, {"use_vllm": True}, {"beta": 0.04, "use_bias_correction_kl": True}],
    ids=str,
)
def test_what_gspo_token_lets_act_on_tokens(configured, settings):
    """Entropy mask, vLLM's ratios and the KL's correction, against the formula: TRL spreads them over the rollout."""
    trainer = configured(settings | {"importance_sampling_level": "sequence", "loss_type": "dapo"})
    _, seen = gradient(trainer, trainer._compute_loss, TOKEN_ADVANTAGES)
    log_probs = LOG_PROBS.clone().requires_grad_()
    sequence = (DRIFT * MASK).sum(1, keepdim=True) / MASK.sum(1, keepdim=True)
    ratio = (log_probs - log_probs.detach() + sequence).exp()
    per_token = -torch.min(ratio * TOKEN_ADVANTAGES, ratio.clamp(0.8, 1.2) * TOKEN_ADVANTAGES)
    if "top_entropy_quantile" in settings:
        per_token = per_token * (ENTROPIES[MASK.bool()].quantile(0.5) <= ENTROPIES)
    if "use_vllm" in settings:
        per_token = per_token * VLLM_RATIOS
    if "beta" in settings:
        difference = REFERENCE - log_probs
        per_token = per_token + 0.04 * (difference.exp() - difference - 1) * ratio
    ((per_token * MASK).sum() / MASK.sum()).backward()
    torch.testing.assert_close(seen, log_probs.grad, atol=1e-6, rtol=1e-5)


def test_gspo_token_by_hand():
    """Log ratios .2 and 0: s = e^.1 at both tokens; the mean of s·A over A = (1, −1) has the gradient ±s/2."""
    log_probs = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    old = torch.tensor([[-1.2, -2.0]])
    ratios = (log_probs - gspo_token_old_log_probs(log_probs, old, torch.ones(1, 2))).exp()
    torch.testing.assert_close(ratios, torch.full((1, 2), 1.105171))
    (ratios * torch.tensor([[1.0, -1.0]])).mean().backward()
    torch.testing.assert_close(log_probs.grad, torch.tensor([[0.552585, -0.552585]]))


def test_one_ratio_per_sequence_would_average_the_credit_away(configured):
    """The same numbers through both losses: TRL's gradient is zero, ours is not."""
    trainer = configured({"importance_sampling_level": "sequence", "loss_type": "grpo"})
    advantages = torch.tensor([[1.0, -1.0, 1.0, -1.0], [0, 0, 0, 0], [0, 0, 0, 0]])
    drift = torch.full((3, 4), 0.1)
    _, theirs = gradient(trainer, lambda m, i: GRPOTrainer._compute_loss(trainer, m, i), advantages, drift=drift)
    _, ours = gradient(trainer, trainer._compute_loss, advantages, drift=drift)
    assert theirs.abs().max() < 1e-7
    torch.testing.assert_close(ours[0], -advantages[0] * 1.105171 / 4 / 3)  # mean over 4 tokens and 3 rollouts
    assert trainer.importance_sampling_level == "sequence"


def test_the_off_policy_mask_keeps_or_drops_a_sequence_whole(configured):
    """Drifted by .5 per token, threshold .1: dropped where the mean advantage is negative, kept where it is not."""
    drift = torch.full((3, 4), -0.5)
    drift[2] = 0.0
    advantages = torch.tensor([[1.0, -3.0, 1.0, 0.5], [-1.0, 2.0, 0.5, 9.0], [-1.0, 0.5, 0.0, 0.0]])
    for level in ("token", "sequence"):
        settings = {"off_policy_mask_threshold": 0.1, "importance_sampling_level": level, "epsilon_low": 0.9}
        trainer = configured(settings)  # with a wide clip, so that only the mask takes gradients away
        _, seen = gradient(trainer, trainer._compute_loss, advantages, drift=drift)
        assert seen[0].eq(0).all()  # mean −.125, too far away: all four tokens, the positive ones too
        assert seen[1, :3].ne(0).all()  # mean +.5 over its three tokens: the negative one too
        assert seen[2, :2].ne(0).all()  # negative, but not far away


PPO_SETTINGS = [
    {},
    {"importance_sampling_level": "sequence"},
    {"off_policy_mask_threshold": 0.01},
    {"top_entropy_quantile": 0.5},
    {"entropy_coef": 0.1, "_entropy_bonus_enabled": True},
    {"use_vllm": True},
    {"loss_type": "sapo"},
]


@pytest.mark.parametrize("settings", PPO_SETTINGS, ids=str)
def test_ppo_is_the_same_policy_loss_and_the_value_loss(trainer, ppo_trainer, monkeypatch, settings):
    """The KL is in PPO's rewards: whatever beta is, the policy's gradient is GRPO's without it."""
    set_all(trainer, settings, monkeypatch)
    set_all(ppo_trainer, settings | {"beta": 0.3, "value_clip": None}, monkeypatch)
    _, expected = gradient(trainer, trainer._compute_loss, TOKEN_ADVANTAGES)
    values = torch.linspace(-1, 1, 18).reshape(3, 6).requires_grad_()  # two prompt tokens, four of the completion

    @contextmanager
    def collecting():
        yield [values]

    monkeypatch.setattr(ppo_trainer.value_tap, "collecting", collecting)
    returns = TOKEN_ADVANTAGES * 0.5
    _, seen = gradient(
        ppo_trainer, ppo_trainer._compute_loss, TOKEN_ADVANTAGES, returns=returns, old_values=torch.zeros(3, 4)
    )
    torch.testing.assert_close(seen, expected)
    errors = (values.detach()[:, 1:5] - returns) * MASK / MASK.sum()  # of ½(V − R)², a mean over all tokens
    torch.testing.assert_close(values.grad[:, 1:5], errors)
    assert values.grad[:, [0, 5]].eq(0).all() and ppo_trainer.beta == 0.3
