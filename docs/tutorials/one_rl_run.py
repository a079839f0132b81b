"""One RL run, read step by step: from sampled text to token advantages to an update.

A script with cells (``# %%``), for an editor that runs them one by one or for ``python docs/tutorials/one_rl_run.py``.
It takes about two minutes on two CPU cores after the toy world has been built, and needs no network.
"""

# %% The parts: a policy, a PRM, prompts with gold answers, a verifier.
from rlhf_prm.prm import load_prm
from rlhf_prm.rl.config import ProcessGRPOConfig
from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.toyworld import ToyWorldSettings, build_world
from rlhf_prm.toyworld.verifier import ExactMatchVerifier

world = build_world(ToyWorldSettings(seed=0, label_source="judge", judge_votes=8), root="runs/cache")
config = ProcessGRPOConfig(
    output_dir="runs/tutorial",
    method="immediate",  # A_k = A_out + ½·p_k, the simplest dense form: easy to check by eye
    max_steps=20,
    per_device_train_batch_size=64,
    num_generations=8,
    max_completion_length=world.settings.max_completion_length,
    learning_rate=3e-4,
    lr_scheduler_type="linear",
    loss_type="bnpo",
    beta=0.0,
    logging_steps=1,
    report_to="none",
    save_strategy="no",
    use_cpu=True,
    bf16=False,
    gradient_checkpointing=False,
    seed=0,
)
trainer = ProcessGRPOTrainer(
    model=str(world.policy_path),
    args=config,
    train_dataset=world.train_dataset,
    step_scorer=load_prm(str(world.prm_path)),
    verifier=ExactMatchVerifier(),
)
before = world.evaluate(trainer.model, trainer.processing_class)

# %% Train. The first update's rollouts are kept by a callback, to look at them below.
from transformers import TrainerCallback  # noqa: E402


class KeepFirst(TrainerCallback):
    batch = None

    def on_step_end(self, args, state, control, **kwargs):
        KeepFirst.batch = KeepFirst.batch or trainer.last_rollouts


trainer.add_callback(KeepFirst())
trainer.train()
batch = KeepFirst.batch

# %% One group: eight rollouts of one prompt. o is the verdict, p are the step scores, A the step advantages.
group = range(8)
print(batch.rows[0].prompt)
for i in group:
    real = batch.rollouts.step_mask[i]
    p = " ".join(f"{value:.2f}" for value in batch.rollouts.step_scores[i][real])
    a = " ".join(f"{value:+.2f}" for value in batch.step_advantages[i][real])
    print(f"o={batch.rollouts.outcome_rewards[i]:.0f}  p = {p}\n     A = {a}")

# %% Check one by hand: A_out = (o − mean o) / (std o + 1e-4) over the group; then ½·p is added to every step.
outcomes = batch.rollouts.outcome_rewards[list(group)]
a_out = (outcomes - outcomes.mean()) / (outcomes.std() + 1e-4)
by_hand = a_out[0] + 0.5 * batch.rollouts.step_scores[0][batch.rollouts.step_mask[0]]
print("by hand:", by_hand, "trainer:", batch.step_advantages[0][batch.rollouts.step_mask[0]])

# %% From steps to tokens: every token of a step gets the step's advantage, and TRL's loss takes it from there.
from reward import step_to_token  # noqa: E402

lengths = batch.rollouts.step_lengths[:1]
print("tokens per step:", lengths[0].tolist())
print(step_to_token(batch.step_advantages[:1], lengths, int(lengths.sum()))[0])

# %% What the run logged. auroc: does the lowest step score tell right rollouts from wrong ones?
names = ("reward", "process/step_score/mean", "process/auroc", "process/num_steps/mean", "advantage/frac_zero")
print("update", *names, sep="  ")
for row in trainer.state.log_history[:20:4]:
    print(row["step"], *(f"{row[name]:.3f}" if row.get(name) is not None else "–" for name in names), sep="  ")

# %% And what it was for.
after = world.evaluate(trainer.model, trainer.processing_class)
for name in before:
    print(f"{name}: {before[name]:.3f} → {after[name]:.3f}")
# One seed and 20 updates prove nothing: docs/dense_rewards.md compares methods over builds, with the ceiling beside.
