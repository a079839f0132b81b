"""The list of every private name of TRL, transformers, accelerate and torch that the trainers touch, and why.

``trl_seam`` is the one file that touches them.
"""

from dataclasses import dataclass

_GRPO, _TRAINER = "trl.trainer.grpo_trainer.GRPOTrainer", "transformers.trainer.Trainer"


@dataclass(frozen=True)
class PrivateName:
    """A name that its library may change at any time.

    ``owner`` is the dotted path of the class or module that has it; ``kind`` is "overridden" or "used".
    """

    owner: str
    name: str
    kind: str
    reason: str
    breaks: str


SEAM = (
    # TRL's GRPO trainer: what ProcessGRPOTrainer overrides
    PrivateName(
        *(_GRPO, "_calculate_rewards", "overridden"),
        reason="the only call between sampling and advantages that has the texts: here they are split and scored",
        breaks="nothing is split, scored or verified",
    ),
    PrivateName(
        *(_GRPO, "_generate_and_score_completions", "overridden"),
        reason="its output holds the advantages, which we replace by token advantages",
        breaks="training uses TRL's advantages of whole completions",
    ),
    PrivateName(
        *(_GRPO, "_compute_loss", "overridden"),
        reason="GSPO-token's ratios, and PPO's value loss from the same forward",
        breaks="sequence-level ratios weigh all tokens alike; the critic is not trained",
    ),
    PrivateName(*(_GRPO, "_tag_names", "overridden"), reason="the model card's tags", breaks="a card without our tags"),
    PrivateName(*(_GRPO, "_name", "overridden"), reason="the model card's method", breaks="a card that says GRPO"),
    PrivateName(
        *("trl.trainer.grpo_config.GRPOConfig", "_VALID_DICT_FIELDS", "overridden"),
        reason="settings that a command line gives as JSON",
        breaks="method_kwargs and shaping_kwargs stay texts, and the configs refuse them",
    ),
    # TRL's GRPO trainer: what is read, set or called
    PrivateName(
        *(_GRPO, "_get_per_token_logps_and_entropies", "overridden"),
        reason="PPO's old log-probabilities and values; GSPO-token's place behind the forward; the way to the head",
        breaks="no PPO, no GSPO-token",
    ),
    PrivateName(
        *(_GRPO, "_metrics", "used"),
        reason="TRL logs the mean of each of its lists",
        breaks="our metrics, the guard's measures and the token count are not logged",
    ),
    PrivateName(
        *(_GRPO, "_logs", "used"),
        reason="the completions table; an evaluation on the way must leave it as it was",
        breaks="steps and step scores are missing in completions/*.parquet, and so in the report",
    ),
    PrivateName(
        *(_GRPO, "_pending_extra_logs", "used"),
        reason="what reward functions have reported for the table: the verdicts, and names that are ours",
        breaks="verdicts of reward functions are not seen; two write to one column",
    ),
    PrivateName(
        *(_GRPO, "_pending_metrics", "used"),
        reason="the same for metrics: shares of verdicts are counted by the trainer, over all ranks",
        breaks="shares of verdicts are counted twice",
    ),
    PrivateName(
        *(_GRPO, "_tokenizer", "used"),
        reason="the tokenizer, also inside a processor of images and text",
        breaks="completions cannot be decoded into steps",
    ),
    PrivateName(
        *(_GRPO, "_is_vlm", "used"),
        reason="the critic and live values read token ids only",
        breaks="a policy that reads images would be trained as if there were none",
    ),
    PrivateName(
        *(_GRPO, "_tokenize_prompts", "used"),
        reason="live values continue from the prompt's tokens as the policy reads them",
        breaks="no live Monte-Carlo values",
    ),
    PrivateName(
        *(_GRPO, "_generate", "overridden"),
        reason="the verifier and a judge begin as soon as completions are there; held-out accuracy and the teacher's "
        "check sample as training does, and ask neither PRM nor loss",
        breaks="scoring waits for TRL's own work; no held-out accuracy on one's own data",
    ),
    PrivateName(
        *(_GRPO, "_generate_single_turn", "overridden"),
        reason="it is called before every turn of the policy: environments are asked what the last one has earned",
        breaks="no turn rewards and no state keys of environments",
    ),
    PrivateName(
        *(_GRPO, "_tool_call_loop", "overridden"),
        reason="the turns behind the first, of which ranks have different numbers: with sharded weights, or a vLLM "
        "that they share, those that are done have to take part in the turns of the others",
        breaks="under ZeRO-3, FSDP or a shared vLLM, ranks with fewer turns are waited for without end",
    ),
    PrivateName(
        *(_GRPO, "_env_tools", "used"),
        reason="TRL takes every public method of an environment for a tool; turn_rewards and state_keys are none",
        breaks="the policy is offered its own rewards as a tool",
    ),
    PrivateName(
        *(_GRPO, "_sync_tool_dicts", "used"),
        reason="the same, for the tools that TRL calls",
        breaks="the policy can call turn_rewards and state_keys",
    ),
    PrivateName(
        *(_GRPO, "_environment_pool", "used"),
        reason="an instance of every kind of environment: which of them tell of turns is asked once, at the start",
        breaks="an environment without turn_rewards is found only after the first generation",
    ),
    PrivateName(
        *(_GRPO, "_dist", "used"),
        reason="FSDP gives whole parameters to generate with; live values sample outside TRL's own generation",
        breaks="no live Monte-Carlo values under FSDP",
    ),
    PrivateName(
        *(_GRPO, "_buffered_inputs", "used"),
        reason="rollouts that wait to be trained on; a rollback discards them",
        breaks="after a rollback the restored weights train on rollouts of the rejected ones",
    ),
    PrivateName(
        *(_GRPO, "_last_loaded_step", "used"),
        reason="the update whose weights vLLM has; a rollback, or an evaluation that is undone, changes them",
        breaks="vLLM samples with the rejected weights",
    ),
    PrivateName(
        *("trl.generation.vllm_generation.VLLMGeneration", "_iter_named_params", "used"),
        reason="the weights sent to vLLM, which must not include the critic's",
        breaks="vLLM refuses the critic's weights, so no PPO with vLLM",
    ),
    PrivateName(
        *("trl.trainer.utils", "_use_triton", "used"),
        reason="TRL's fused head checks with it whether to score only completions, which it does not do on a CPU",
        breaks="on a CPU the head projects prompts and padding too, at several times the cost",
    ),
    PrivateName(
        *("trl.trainer.grpo_trainer", "gather_object", "used"),
        reason="TRL gathers every prompt and completion for its table, one after the other and before anything else "
        "that it gathers as objects",
        breaks="every process holds the texts of all processes, or something else is shortened",
    ),
    # TRL's experimental AsyncGRPO
    PrivateName(
        *("trl.experimental.async_grpo.async_rollout_worker._AsyncRolloutLoop", "_score_group", "overridden"),
        reason="a group's samples get advantages of their tokens where it is scored, in the rollout worker",
        breaks="no dense advantages in AsyncGRPO",
    ),
    PrivateName(
        *("trl.experimental.async_grpo.async_rollout_worker.AsyncRolloutWorker", "_loop_cls", "used"),
        reason="the loop that the worker's process runs",
        breaks="AsyncGRPO runs with its own advantages, one per sample",
    ),
    # transformers' trainer
    PrivateName(
        *(_TRAINER, "_save_checkpoint", "overridden"),
        reason="a method's memory belongs in a checkpoint; a run that loses its PRM server saves one at once",
        breaks="a resumed method starts without its memory; updates are lost with the server",
    ),
    PrivateName(
        *(_TRAINER, "_load_optimizer_and_scheduler", "overridden"),
        reason="every backend calls it when it resumes",
        breaks="a resumed method starts without its memory",
    ),
    PrivateName(
        *(_TRAINER, "_save", "overridden"),
        reason="the policy's checkpoint holds no critic; the critic has a file beside it",
        breaks="saved policies contain a critic and cannot be loaded",
    ),
    PrivateName(
        *(_TRAINER, "_load_from_checkpoint", "overridden"),
        reason="loads the critic from its file",
        breaks="PPO resumes with a new critic",
    ),
    PrivateName(
        *(_TRAINER, "_issue_warnings_after_load", "overridden"),
        reason="the critic is missing in the policy's checkpoint by intent",
        breaks="a false warning on resuming PPO",
    ),
    PrivateName(
        *(_TRAINER, "_get_num_items_in_batch", "overridden"),
        reason="PRM training with loss pqm is a mean over rollouts, not over labelled steps",
        breaks="pqm's loss depends on how a batch is cut into micro-batches",
    ),
    PrivateName(
        *(_TRAINER, "_get_train_sampler", "overridden"),
        reason="batch_rebalance shuffles by a seed of its own, the same in every run",
        breaks="all PRM training runs see the same order of rows",
    ),
    PrivateName(
        *(_TRAINER, "_get_output_dir", "used"),
        reason="where the checkpoint goes, hyperparameter search included",
        breaks="the method's memory lies outside the checkpoint",
    ),
    PrivateName(
        *(_TRAINER, "_eval_dataloaders", "used"),
        reason="with persistent workers it keeps the loader of the first data set evaluated for all others",
        breaks="one evaluation decides which rows the next evaluation reads",
    ),
    PrivateName(
        *(_TRAINER, "_loss_shifts_labels", "used"),
        reason="labels of steps are counted unshifted; a language model's are shifted by one",
        breaks="the PRM's loss is divided by too few steps",
    ),
    PrivateName(
        *(_TRAINER, "_prepare_inputs", "used"),
        reason="moves a batch to the device, in an evaluation step of our own",
        breaks="no evaluation of a PRM in training",
    ),
    # torch
    PrivateName(
        *("torch.optim.lr_scheduler.LambdaLR", "_last_lr", "used"),
        reason="what get_last_lr gives and the trainer logs, where we change the rates of a schedule",
        breaks="wrong learning rates in the log; the rates themselves are right",
    ),
)
