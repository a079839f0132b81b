"""After a rollback nothing of the rejected weights trains on: not their rollouts, not vLLM's copy of them."""

import pytest
from transformers import TrainerCallback

from rlhf_prm.guard.last_good import LastGood, refuse_unknown_momentum
from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.rl.ppo import ProcessPPOTrainer
from rlhf_prm.rl.ppo_config import ProcessPPOConfig
from tests.tiny import DigitVerifier, HashScorer, tiny_config, tiny_dataset, tiny_policy, tiny_tokenizer


class Back(TrainerCallback):
    """Keeps the first weights and puts them back after update ``at``; counts the batches sampled until each update."""

    def __init__(self, folder, at: int) -> None:
        self.folder, self.at, self.sampled, self.trainer = folder, at, [], None

    def on_train_begin(self, args, state, control, **_):
        self.good = LastGood(self.trainer, self.folder / "kept")
        self.good.save(0)
        self.batches, generate = 0, self.trainer._generate_and_score_completions

        def counted(inputs):
            self.batches += 1
            return generate(inputs)

        self.trainer._generate_and_score_completions = counted

    def on_step_end(self, args, state, control, **_):
        self.sampled.append(self.batches)
        if state.global_step == self.at:
            self.trainer._last_loaded_step = state.global_step  # vLLM has just evaluated the weights to be rejected
            self.good.restore()
            assert self.trainer._last_loaded_step != state.global_step


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
@pytest.mark.parametrize(
    ("settings", "sampled"),
    [
        ({"num_iterations": 4}, [1, 2, 2, 2, 3, 3]),
        ({"steps_per_generation": 4, "per_device_train_batch_size": 4}, [1, 2, 2, 2, 3, 3]),
        (
            {"steps_per_generation": 4, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 4},
            [1, 2, 3, 3, 4, 4],
        ),
    ],
    ids=["num_iterations", "steps_per_generation", "accumulation"],
)
def test_the_update_after_a_rollback_trains_on_fresh_rollouts(tmp_path, algorithm, settings, sampled):
    """The rollouts are those of the weights put back: no token's probability has moved yet."""
    back = Back(tmp_path, at=1)
    common = dict(max_steps=6, learning_rate=1e-2, lr_scheduler_type="constant", **settings)
    if algorithm == "grpo":
        trainer_class, config = ProcessGRPOTrainer, tiny_config(tmp_path, **common)
    else:
        common["num_generations"] = 1
        trainer_class, config = ProcessPPOTrainer, tiny_config(tmp_path, ProcessPPOConfig, **common)
    back.trainer = trainer_class(
        model=tiny_policy(),
        args=config,
        train_dataset=tiny_dataset(64),
        processing_class=tiny_tokenizer(),
        step_scorer=HashScorer(),
        verifier=DigitVerifier(),
        callbacks=[back],
    )
    back.trainer.train()
    assert back.sampled == sampled
    outside = [row["clip_ratio/region_mean"] for row in back.trainer.state.log_history if "loss" in row]
    assert outside[1] == 0.0 and max(outside) > 0.0


@pytest.mark.parametrize("optim", ["adamw_8bit", "paged_lion_8bit", "adamw_torch_4bit"])
def test_momentum_that_would_be_kept_is_refused(optim):
    with pytest.raises(ValueError, match=f"got optim '{optim}', whose momentum it cannot reset"):
        refuse_unknown_momentum(optim)
    refuse_unknown_momentum("adamw_torch_fused")
