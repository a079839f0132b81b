"""ProcessPPOTrainer: PPO with a critic, on the rollouts, PRM, verifier and logs of ProcessGRPOTrainer."""

from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import ProcessorMixin
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.callbacks import SyncRefModelCallback
from trl.trainer.utils import disable_dropout_in_model

from reward import (
    SHAPINGS,
    StepRollouts,
    generalized_advantage_estimation,
    resolve,
    scheduled,
    step_to_token,
    tokens_to_step,
)
from reward.ppo import clipped_value_loss, explained_variance, kl_penalty, masked_sums, token_rewards, whitened
from rlhf_prm.prm.protocol import StepScorer
from rlhf_prm.rl.critic import (
    PREFIX,
    Critic,
    SyncReferenceToPolicy,
    ValueTap,
    check_vocabulary,
    critic_trunk,
    load_critic,
    policy_state,
    save_critic,
    state_values,
)
from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.rl.master_weights import has_master_weights, one_dtype_for_zero3, refuse_deepspeeds_own
from rlhf_prm.rl.policy_tokens import compacted, in_front, of_width, policy_tokens, scattered
from rlhf_prm.rl.ppo_config import TOKEN_SCORES, ProcessPPOConfig
from rlhf_prm.rl.scorers import Scorer
from rlhf_prm.rl.trl_seam import (
    loss_setting,
    metrics_of,
    reads_images,
    send_to_vllm_only,
    tell_rates,
    token_log_probs,
    tokenizer_of,
)
from rlhf_prm.rl.turn_scores import TurnFunction


class ProcessPPOTrainer(ProcessGRPOTrainer):
    """PPO whose token rewards come from a PRM, a verifier and the distance to the reference policy.

    Sampling, scoring, verifying, logging, checkpoints, PEFT and vLLM are ``ProcessGRPOTrainer``'s, the clipped policy
    loss is TRL's. Overridden: the advantages (GAE instead of a method of groups), ``_compute_loss`` (adds the value
    loss; the KL is in the reward and not in the loss), the optimizer and scheduler (the critic's own learning rate and
    warm-up), and saving and loading (the policy's checkpoint has no critic in it; ``critic.safetensors`` lies beside).

    Args:
        model, args, step_scorer, verifier, reward_funcs and all others: as ProcessGRPOTrainer's.

    Raises:
        ValueError: what ProcessGRPOTrainer raises, an unknown shaping, no PRM for a process weight, no weights to
            start the critic from, or an optimizer of the caller's.
    """

    _tag_names = ("trl", "ppo", "process-supervision")
    _name = "Process PPO"

    def __init__(
        self,
        model: str | nn.Module,
        args: ProcessPPOConfig,
        *,
        step_scorer: Scorer | None = None,
        turn_scorer: StepScorer | TurnFunction | None = None,
        **arguments: Any,
    ) -> None:
        if args.process_weight and all(one is None for one in (step_scorer, turn_scorer, args.turn_scores)):
            raise ValueError(
                f"process_weight {args.process_weight} needs step scores: pass step_scorer=load_prm(…), or "
                "process_weight=0"
            )
        _refuse_images(isinstance(arguments.get("processing_class"), ProcessorMixin))
        if (arguments.get("optimizers") or (None, None))[0] is not None:
            raise ValueError(
                "optimizers: got an optimizer, expected none: the critic is made in the trainer, so an optimizer that "
                "was made before does not train it; choose one by optim and optim_args"
            )
        refuse_deepspeeds_own(args, "critic_learning_rate and critic_warmup")
        self._shaping = None
        if args.shaping == TOKEN_SCORES:
            _check_token_scorer(args, step_scorer)
        else:
            self._shaping = resolve(args.shaping, SHAPINGS, "shaping")
            self._check_shaping(args)
        trunk, source = _trunk_of(model, args, step_scorer)
        super().__init__(model=model, args=args, step_scorer=step_scorer, turn_scorer=turn_scorer, **arguments)
        _refuse_images(reads_images(self))
        if trunk is not None and source is not None:
            check_vocabulary(trunk, source, tokenizer_of(self))
        self.value_tap = ValueTap(self.model, self._critic(trunk, args))
        one_dtype_for_zero3(self.model)
        if args.sync_ref_model:
            theirs = self.pop_callback(SyncRefModelCallback)
            self.add_callback(SyncReferenceToPolicy(theirs.ref_model, theirs.accelerator))
        if self.use_vllm:
            send_to_vllm_only(self.vllm_generation, lambda name: not name.startswith(PREFIX))

    def _critic(self, trunk, args: ProcessPPOConfig) -> Critic:
        hidden_size = (trunk or self.model).config.get_text_config().hidden_size
        critic = Critic(hidden_size, trunk, detach=args.critic == "detached")
        if not has_master_weights(args):  # the policy may be bfloat16 under float32 adapters; all of this is trained
            critic.float()
        if args.disable_dropout:
            disable_dropout_in_model(critic)
        if trunk is not None and args.gradient_checkpointing:
            trunk.gradient_checkpointing_enable(args.gradient_checkpointing_kwargs)
        if self.place_model_on_device:
            critic.to(args.device)
        return critic

    # Rewards and advantages

    def _process_rewards(self, rollouts: StepRollouts, rows: slice) -> Float[Tensor, "B K"]:
        """The weighted, shaped step scores of these rows; 0 in the padding."""
        mask = rollouts.step_mask[rows]
        weight = self.args.process_weight * self.process_scale
        if not weight or self._shaping is None:
            return torch.zeros(mask.shape, device=mask.device)
        keywords = {name: scheduled(value, self.state.global_step) for name, value in self.args.shaping_kwargs.items()}
        credited = mask if self._credited is None else mask & self._credited[rows].to(mask.device)
        return weight * torch.where(credited, self._shaping(rollouts.step_scores[rows], mask, **keywords), 0)

    def _credited_tokens(
        self, lengths: Int[Tensor, "B K"], rows: slice, mask: Bool[Tensor, "B T"]
    ) -> Bool[Tensor, "B T"]:
        """The tokens of these rows that lie in steps with process credit."""
        if self._credited is None:
            return mask
        credited = self._credited[rows].to(mask.device, torch.float32)
        return mask & step_to_token(credited, lengths, mask.size(1)).bool()

    def _advantages(self, output: dict[str, Tensor], rollouts: StepRollouts, local: slice) -> tuple[Tensor, Tensor]:
        """(B, K) mean advantage of each step over all ranks, and (B, T) token advantages of this one.

        All of it is computed on the policy's own tokens, moved together: the value after the last token before a tool
        result is that of the first token after it, and the tokens of tools have no advantage, value or return.
        Leaves ``old_values`` and ``returns`` in ``output`` for the value loss.
        """
        own, lengths = policy_tokens(output), rollouts.token_counts[local]
        log_probs, values = (compacted(of_all, own) for of_all in self._old_policy(output))
        mask, outcomes = in_front(own), rollouts.outcome_rewards[local]
        rewards = token_rewards(self._process_rewards(rollouts, local), lengths, outcomes, mask)
        if self._shaping is None and self.args.process_weight:
            weight = self.args.process_weight * self.process_scale
            of_tokens = of_width(rollouts.required_token_scores[local], mask)
            rewards = rewards + weight * torch.where(self._credited_tokens(lengths, local, mask), of_tokens, 0)
        if self.beta:
            kl = kl_penalty(log_probs, compacted(output["ref_per_token_logps"], own), mask)
            rewards = rewards - self.beta * kl
            self._log_mean("kl", kl, mask)
        advantages, returns = generalized_advantage_estimation(
            rewards, values, mask, gamma=self.args.gamma, lam=self.args.lam
        )
        self._log_critic(values, returns, mask)
        if self.args.whiten_advantages:
            advantages = whitened(advantages, mask, self._summed(masked_sums(advantages, mask)))
        output |= {"old_values": scattered(values, own), "returns": scattered(returns, own)}
        means = tokens_to_step(advantages, lengths) / lengths.clamp(min=1)
        return self.accelerator.gather(means), scattered(advantages, own)

    def _old_policy(self, output: dict[str, Tensor]) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B T"]]:
        """Log-probabilities and values of the completion tokens under the weights that sampled them."""
        input_ids = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)
        attention_mask = torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1)
        num_tokens, args = output["completion_ids"].size(1), self.args
        batch = args.per_device_train_batch_size if self.model.training else args.per_device_eval_batch_size
        checkpointing = disable_gradient_checkpointing(self.model, args.gradient_checkpointing_kwargs)
        with torch.no_grad(), checkpointing, self.value_tap.collecting() as values:
            log_probs = token_log_probs(self, input_ids, attention_mask, num_tokens, batch_size=batch)
        return output.get("old_per_token_logps", log_probs), state_values(values, num_tokens)

    # Loss

    def _compute_loss(self, model, inputs):
        """TRL's policy loss without its KL term, plus the clipped value loss of the same forward."""
        mask = policy_tokens(inputs)
        with loss_setting(self, "beta", 0.0), self.value_tap.collecting() as values:
            policy_loss = super()._compute_loss(model, inputs)
        per_token, clipped = clipped_value_loss(
            state_values(values, mask.size(1)),
            inputs["old_values"],
            inputs["returns"],
            mask,
            clip=self.args.value_clip,
        )
        self._log_mean("critic/value_loss", per_token.detach(), mask)
        self._log_mean("critic/clip_frac", clipped.float(), mask)
        # A mean over all tokens of the generation batch, as TRL's dapo: the same on one rank and on many.
        normalizer = inputs["num_items_in_batch"].clamp(min=1.0) / self.accelerator.num_processes
        if self.model.training:
            normalizer = normalizer * self.current_gradient_accumulation_steps / self.args.steps_per_generation
        return policy_loss + self.args.value_weight * per_token.sum() / normalizer

    # Logs

    def _summed(self, sums: Tensor) -> Tensor:
        return self.accelerator.reduce(sums, reduction="sum")

    def _log_mean(self, name: str, values: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> None:
        count, total, _ = self._summed(masked_sums(values, mask)).tolist()
        metrics_of(self, "train" if self.model.training else "eval")[name].append(total / max(count, 1))

    def _log_critic(self, values: Tensor, returns: Tensor, mask: Tensor) -> None:
        metrics = metrics_of(self, "train" if self.model.training else "eval")
        of_returns = self._summed(masked_sums(returns, mask))
        of_errors = self._summed(masked_sums(returns - values, mask))
        metrics["critic/explained_variance"].append(explained_variance(of_returns, of_errors))
        metrics["critic/return"].append((of_returns[1] / of_returns[0].clamp(min=1)).item())
        self._log_mean("critic/value", values, mask)

    # Optimizer

    def create_optimizer(self, model=None):
        """As transformers', with the critic's parameters in groups of their own."""
        if self.optimizer is None:
            super().create_optimizer(model)
            critic = (self.model if model is None else model).critic
            split_parameter_groups(self.optimizer, critic.parameters(), self.args.critic_learning_rate)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer=None):
        """As transformers', with the policy's learning rate at 0 during the critic's warm-up."""
        created = self.lr_scheduler is None
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        if created and self.args.critic_warmup:
            hold_policy(scheduler, self.args.critic_warmup)
        return scheduler

    # Checkpoints

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        state = self.model.state_dict() if state_dict is None else state_dict
        super()._save(output_dir, policy_state(state))
        save_critic(state, output_dir or self.args.output_dir)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if not self.is_fsdp_enabled:  # FSDP's own checkpoint has both; DeepSpeed's too, and does not come here
            load_critic(self.model.critic, resume_from_checkpoint)

    def _issue_warnings_after_load(self, load_result) -> None:
        load_result.missing_keys[:] = [name for name in load_result.missing_keys if not name.startswith(PREFIX)]
        super()._issue_warnings_after_load(load_result)

    @staticmethod
    def _check_shaping(args: ProcessPPOConfig) -> None:
        """Call the shaping once on made-up scores, so that a mistake shows before the first generation."""
        scores, mask = torch.tensor([[0.9, 0.2], [0.4, 0.0]]), torch.tensor([[True, True], [True, False]])
        keywords = {name: scheduled(value, 0) for name, value in args.shaping_kwargs.items()}
        try:
            rewards = resolve(args.shaping, SHAPINGS, "shaping")(scores, mask, **keywords)
        except TypeError as error:
            raise ValueError(f"shaping_kwargs: shaping {args.shaping!r} with {keywords}: {error}") from error
        if tuple(rewards.shape) != (2, 2):
            raise ValueError(f"shaping {args.shaping!r}: got shape {tuple(rewards.shape)} for 2 × 2 scores")


def _check_token_scorer(args: ProcessPPOConfig, step_scorer: Any) -> None:
    if args.process_weight and not hasattr(step_scorer, "score_tokens"):
        raise ValueError(
            f"shaping {TOKEN_SCORES!r}: got step_scorer {type(step_scorer).__name__}, expected one with score_tokens "
            "(an implicit PRM, a teacher, the policy's own reference)"
        )
    if args.shaping_kwargs:
        raise ValueError(f"shaping_kwargs: got {args.shaping_kwargs}, expected none: shaping {TOKEN_SCORES!r} has none")


def split_parameter_groups(optimizer: torch.optim.Optimizer, critic_parameters, learning_rate: float) -> None:
    """Moves the critic's parameters into groups of their own, marked ``critic=True``; empty groups are dropped."""
    critic = {id(parameter) for parameter in critic_parameters}
    groups = optimizer.param_groups[:]
    optimizer.param_groups.clear()
    for theirs in (False, True):
        for group in groups:
            parameters = [p for p in group["params"] if (id(p) in critic) == theirs]
            if parameters:
                changed = {"lr": learning_rate} if theirs else {}
                optimizer.add_param_group({**group, "params": parameters, "critic": theirs, **changed})


def hold_policy(scheduler, updates: int) -> None:
    """Sets the learning rate of every group but the critic's to 0 for the first ``updates`` updates."""
    factors = getattr(scheduler, "lr_lambdas", None)
    if factors is None:
        raise ValueError(
            f"critic_warmup: got lr_scheduler {type(scheduler).__name__}, expected one of factors (LambdaLR)"
        )
    for index, group in enumerate(scheduler.optimizer.param_groups):
        if not group.get("critic"):
            factors[index] = partial(_held, factors[index], updates)
            group["lr"] = scheduler.base_lrs[index] * factors[index](scheduler.last_epoch)
    tell_rates(scheduler)


def _held(factor, updates: int, update: int) -> float:
    return 0.0 if update < updates else factor(update)


def _trunk_of(model, args: ProcessPPOConfig, step_scorer):
    """The critic's own trunk and the checkpoint it came from; (None, None) if it uses the policy's trunk."""
    if args.critic != "own":
        return None, None
    source = args.critic_init
    if source == "prm":
        source = getattr(step_scorer, "name_or_path", None)
        if source is None:
            raise ValueError(
                f"critic_init='prm': got a step scorer without a checkpoint ({type(step_scorer).__name__}); name the "
                "PRM's folder in critic_init"
            )
    if source == "policy" and not isinstance(model, str):
        return critic_trunk(model), None
    settings = dict(args.model_init_kwargs or {})
    load = {"dtype": settings.get("dtype", "float32" if isinstance(model, str) else model.dtype)}
    if "attn_implementation" in settings:
        load["attn_implementation"] = settings["attn_implementation"]
    if source == "policy":
        return critic_trunk(model, revision=settings.get("revision", "main"), **load), None
    return critic_trunk(source, **load), source


def _refuse_images(with_processor: bool) -> None:
    if with_processor:
        raise ValueError(
            "processing_class: got a processor of images and text, expected a tokenizer: the critic and the "
            "log-probabilities of the old policy read token ids only, so PPO would train as if there were no images"
        )
