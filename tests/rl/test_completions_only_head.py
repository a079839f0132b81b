"""On a CPU the output head projects the completions alone: fewer rows, the same log-probabilities and gradients."""

import pytest
import torch
from trl import GRPOTrainer
from trl.trainer import utils

from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.rl.trl_seam import HEAD_PAYS_FROM, completions_only_head
from tests.tiny import DigitVerifier, HashScorer, tiny_config, tiny_dataset, tiny_policy, tiny_tokenizer

PROMPT, COMPLETION = 9, 6


def trainer_of(folder, **changes):
    return ProcessGRPOTrainer(
        model=tiny_policy(**changes),
        args=tiny_config(folder),
        train_dataset=tiny_dataset(8),
        processing_class=tiny_tokenizer(),
        step_scorer=HashScorer(),
        verifier=DigitVerifier(),
    )


@pytest.fixture
def trainer(tmp_path):
    """With the smallest vocabulary that counts as large."""
    return trainer_of(tmp_path, vocab_size=HEAD_PAYS_FROM)


@pytest.fixture
def projected(monkeypatch):
    """The number of rows that went through the head, per call."""
    rows, real = [], utils._ChunkedLogProbFunction.apply

    def counted(hidden, *others):
        rows.append(len(hidden))
        return real(hidden, *others)

    monkeypatch.setattr(utils._ChunkedLogProbFunction, "apply", counted)
    return rows


def batch():
    """Four rows: prompts padded on the left, completions of 6, 4, 1 and 3 tokens padded on the right."""
    ids = torch.randint(2, 20, (4, PROMPT + COMPLETION), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    for row, (left, real) in enumerate([(0, 6), (3, 4), (5, 1), (8, 3)]):
        mask[row, :left], mask[row, PROMPT + real :] = 0, 0
    return ids * mask, mask


def scored(owner, trainer):
    """(log-probabilities, entropies, gradient of the head) by ``owner``'s method."""
    ids, mask = batch()
    trainer.model.zero_grad()
    method = owner._get_per_token_logps_and_entropies
    log_probs, entropies, _ = method(trainer, trainer.model, ids, mask, COMPLETION, compute_entropy=True)
    (log_probs * torch.arange(1.0, 1 + log_probs.numel()).view_as(log_probs)).sum().backward()
    gradients = torch.cat([p.grad.flatten() for p in trainer.model.parameters()])
    return log_probs.detach(), entropies.detach(), gradients.clone()


def test_the_log_probabilities_are_trls_and_fewer_rows_are_projected(trainer, projected):
    theirs, ours = scored(GRPOTrainer, trainer), scored(ProcessGRPOTrainer, trainer)
    assert projected == [4 * (PROMPT + COMPLETION - 1), 6 + 4 + 1 + 3]
    assert ours[0].shape == (4, COMPLETION)
    # Equal to the last bit where this was written; a matrix product may round by its number of rows.
    for theirs_one, ours_one in zip(theirs, ours, strict=True):
        torch.testing.assert_close(theirs_one, ours_one, rtol=1e-6, atol=1e-6)
    assert (ours[0] != 0).sum() == 6 + 4 + 1 + 3


def test_a_batch_without_a_scored_token_has_a_loss_of_zero(trainer):
    ids, mask = batch()
    mask[:, PROMPT:] = 0
    log_probs, *_ = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, COMPLETION)
    log_probs.sum().backward()
    assert not log_probs.any() and not any(p.grad is not None and p.grad.any() for p in trainer.model.parameters())


def test_a_small_vocabulary_is_left_to_trl(tmp_path, projected):
    """Nothing is to be gained there, and every number stays TRL's to the last bit."""
    trainer = trainer_of(tmp_path)
    theirs, ours = scored(GRPOTrainer, trainer), scored(ProcessGRPOTrainer, trainer)
    assert projected == [4 * (PROMPT + COMPLETION - 1)] * 2
    assert all(torch.equal(*pair) for pair in zip(theirs, ours, strict=True))


def test_trls_own_trainers_are_left_as_they_are():
    before = utils._use_triton
    with pytest.raises(RuntimeError), completions_only_head(HEAD_PAYS_FROM):
        assert utils._use_triton(torch.device("cpu")) and not utils._use_triton(torch.device("meta"))
        raise RuntimeError
    assert utils._use_triton is before and not before(torch.device("cpu"))
