"""The seam with TRL: fails loudly when TRL moves what the trainer stands on."""

import inspect
from importlib.metadata import requires, version

import torch
from packaging.requirements import Requirement
from trl import GRPOTrainer

from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from tests.tiny import DigitVerifier, HashScorer, tiny_config, tiny_dataset, tiny_policy, tiny_tokenizer


def test_trl_is_the_pinned_minor_version():
    wanted = next(Requirement(line) for line in requires("rlhf-prm") if Requirement(line).name == "trl")
    assert version("trl") in wanted.specifier and "1.17" not in wanted.specifier


def test_only_these_methods_of_trl_are_overridden():
    """Two for the advantages, two for what TRL weighs by sequence, two for a method's memory in checkpoints."""
    inherited = set(dir(GRPOTrainer))
    overridden = {name for name in vars(ProcessGRPOTrainer) if name in inherited and not name.startswith("__")}
    assert overridden - {"_tag_names", "_name"} == {
        "_calculate_rewards",
        "_generate_and_score_completions",
        "_compute_loss",
        "get_off_policy_mask",
        "_save_checkpoint",
        "_load_optimizer_and_scheduler",
    }


def test_signatures_of_the_overridden_methods():
    parameters = list(inspect.signature(GRPOTrainer._calculate_rewards).parameters)
    assert parameters == ["self", "inputs", "prompts", "completions", "completion_ids_list"]
    assert list(inspect.signature(GRPOTrainer._generate_and_score_completions).parameters) == ["self", "inputs"]
    assert list(inspect.signature(GRPOTrainer._save_checkpoint).parameters) == ["self", "model", "trial"]
    assert list(inspect.signature(GRPOTrainer._load_optimizer_and_scheduler).parameters) == ["self", "checkpoint"]


class Recorder(GRPOTrainer):
    """Plain TRL; remembers what its two methods give."""

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        self.seen_rewards, self.seen_ids = rewards, completion_ids_list
        return rewards

    def _generate_and_score_completions(self, inputs):
        self.seen_output = super()._generate_and_score_completions(inputs)
        self.logged = len(self._logs["advantages"])
        return self.seen_output


def one_update(trainer_class, folder, **arguments):
    config = tiny_config(folder, max_steps=1)
    arguments.setdefault("reward_funcs", lambda completions, **_: [float(len(c)) for c in completions])
    trainer = trainer_class(
        model=tiny_policy(), args=config, train_dataset=tiny_dataset(8), processing_class=tiny_tokenizer(), **arguments
    )
    trainer.train()
    return trainer


def test_what_trl_hands_over(tmp_path):
    """One row per completion on this rank, gathered rewards (B, functions), unpadded ids, tensors in the output."""
    trainer = one_update(Recorder, tmp_path)
    output = trainer.seen_output
    assert trainer.seen_rewards.shape == (8, 1) and len(trainer.seen_ids) == 8
    assert output["advantages"].shape == (8,) and trainer.logged == 8
    lengths = output["completion_mask"].sum(1).tolist()
    assert lengths == [len(ids) for ids in trainer.seen_ids]
    for row, ids in enumerate(trainer.seen_ids):
        assert output["completion_ids"][row, : len(ids)].tolist() == ids
    for name in ("_metrics", "_logs", "_tokenizer", "reward_weights", "num_generations", "num_generations_eval"):
        assert hasattr(trainer, name), name
    for name in ("_pending_extra_logs", "_pending_metrics"):
        assert isinstance(getattr(trainer, name), dict), name
    assert {"advantages", "extra", "prompt", "completion"} <= set(trainer._logs)


def test_what_a_rollback_makes_trl_forget():
    """It samples where the buffer is None, and sends vLLM the weights where they are not of this update."""
    prepare = inspect.getsource(GRPOTrainer._prepare_inputs)
    assert "or self._buffered_inputs is None" in prepare
    for method in (GRPOTrainer._generate, GRPOTrainer._generate_single_turn):
        assert "self.state.global_step != self._last_loaded_step" in inspect.getsource(method)


def test_the_loss_takes_token_advantages(tmp_path):
    """Other advantages on the tokens of one step must change the gradient, those on padding must not."""

    def gradients(scale_first: float, on_padding: float) -> torch.Tensor:
        class Scaled(ProcessGRPOTrainer):
            def _generate_and_score_completions(self, inputs):
                output = super()._generate_and_score_completions(inputs)
                advantages = output["advantages"]
                assert advantages.shape == output["completion_mask"].shape
                scale = torch.ones_like(advantages)
                scale[:, 0] = scale_first
                output["advantages"] = advantages * scale + on_padding * (1 - output["completion_mask"])
                return output

        policy = tiny_policy()
        config = tiny_config(tmp_path, max_steps=1, learning_rate=0.0, max_grad_norm=1e9)
        trainer = Scaled(
            model=policy,
            args=config,
            train_dataset=tiny_dataset(8),
            processing_class=tiny_tokenizer(),
            step_scorer=HashScorer(),
            verifier=DigitVerifier(),
        )
        trainer.train()
        return torch.tensor([log["grad_norm"] for log in trainer.state.log_history if "grad_norm" in log])

    plain = gradients(1.0, 0.0)
    assert torch.equal(plain, gradients(1.0, 5.0))
    assert not torch.allclose(plain, gradients(-3.0, 0.0))
