"""ProcessGRPOTrainer: TRL's GRPO with token advantages from step scores and a verifier."""

import logging
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset, IterableDataset
from jaxtyping import Float
from torch import Tensor, nn
from trl import GRPOTrainer
from trl.trainer.grpo_trainer import RewardFunc

from reward import StepRollouts, outcome_reward, step_to_token, tokens_to_step
from reward.reward_functions import gold_text, shared_verifier
from reward.verifier import STATUSES, Verifier
from rlhf_prm.prm.protocol import StepScorer
from rlhf_prm.rl.completion_table import OWN_COLUMNS, STATUS_COLUMN, completion_columns
from rlhf_prm.rl.config import ProcessGRPOConfig
from rlhf_prm.rl.dataset_checks import check_datasets
from rlhf_prm.rl.environments import OWN_METHODS, EnvironmentReports, Reported, reported_by_rollout_func
from rlhf_prm.rl.failed_batch import undone_if_it_fails
from rlhf_prm.rl.gathered_texts import blanked, kept_of_rank, without_texts
from rlhf_prm.rl.master_weights import check_master_weights, refuse_low_precision
from rlhf_prm.rl.outcomes import VerifierReward, check_sources, not_about_unlabelled, readable
from rlhf_prm.rl.own_state import load_own_state, load_policys_adapter, save_own_state
from rlhf_prm.rl.parts import credited_steps
from rlhf_prm.rl.policy_log_probs import policy_log_probs
from rlhf_prm.rl.policy_tokens import of_width, policy_tokens, scattered
from rlhf_prm.rl.rollout_metrics import rollout_metrics, scorer_metrics
from rlhf_prm.rl.rollout_scoring import (
    RolloutScoring,
    ScoredRollout,
    StartedScoring,
    step_rollouts,
    with_statuses,
)
from rlhf_prm.rl.sampled import Sampled
from rlhf_prm.rl.scorers import Scorer
from rlhf_prm.rl.scoring_in_parts import ScoringInParts, check_parts, sampled_in_parts
from rlhf_prm.rl.sequence_ratios import gspo_token, off_policy_mask
from rlhf_prm.rl.step_advantages import StepAdvantages
from rlhf_prm.rl.thoughts import refuse_unopened, tell_of_thoughts
from rlhf_prm.rl.trl_seam import (
    checkpoint_folder,
    completions_only_head,
    hide_from_policy,
    kinds_of_environments,
    metrics_of,
    prompt_ids,
    reported_by_rewards,
    tables_of,
    texts_shortened,
    tokenizer_of,
)
from rlhf_prm.rl.turn_scores import TurnFunction, turn_scores
from rlhf_prm.rl.turns import Told, num_turns, prompt_text, told_by_trl
from rlhf_prm.rl.turns_in_step import TurnsInStep, in_step
from rlhf_prm.rl.update_batches import ScoredBatch
from rlhf_prm.tokenizer_checks import check_policy


class ProcessGRPOTrainer(GRPOTrainer):
    """GRPO with one advantage per token, computed from PRM step scores and the verifier's outcome.

    Overrides three methods of ``trl.GRPOTrainer``: ``_generate`` starts to split, score and verify the completions as
    soon as they are there; ``_calculate_rewards`` waits for the verdicts; ``_generate_and_score_completions`` waits for
    a scorer that works in the background and replaces the advantages. Two more make what TRL weighs by sequence fit
    token advantages (``sequence_ratios``), one saves work in the output head on a CPU, two carry a method's memory
    through checkpoints (``StepAdvantages``), and two ask the environments between turns and keep ranks in step. All
    else is TRL's, its tools too: their text belongs to no step, gets no advantage and is not verified (docs/turns.md).

    Args:
        model, args, train_dataset, eval_dataset, processing_class, callbacks, optimizers, peft_config: as TRL's.
            Dataset columns: ``prompt`` (text or messages), ``solution`` (the gold answer; None = there is none, and the
            prompt is learned from step scores alone), optionally ``problem`` (what the PRM reads; default: the prompt's
            text, or its last user message).
        step_scorer: the PRM, or another scorer (``rlhf_prm.rl.scorers``). Needed by every method but "outcome"; the
            methods of ``reward.TOKEN_METHODS`` need one with ``score_tokens``.
        verifier: anything with ``verify(completions, solutions)``; its reward is the first of the reward functions, and
            its verdict decides what is correct, whatever the other reward functions return.
        turn_scorer: scores whole turns of a policy that uses tools: a PRM or a judge that reads turns as if they were
            steps, or a function ``(problems, turns) -> scores``. They are merged into the step scores by
            ``args.turn_rule``; ``args.turn_scores`` names other sources.
        reward_funcs: further TRL reward functions; weighted by ``args.reward_weights`` they add to the outcome. Without
            a ``verifier``, one that reports ``verifier_status`` by ``log_extra`` (``reward.outcome_reward`` does) gives
            the verdicts; without that, an outcome above 0.5 is correct.

    Attributes:
        process_scale: float in [0, 1]; shrinks what the method adds to outcome-only (see ``StepAdvantages``).
        text_budget: int or None; of about how many rollouts of a batch the texts are gathered (None = all).
        last_rollouts: the newest ``ScoredBatch``.

    Raises:
        ValueError: an unknown method or keyword, no source of an outcome, a method without its PRM, a dataset that
            nothing can be learned from (``check_datasets``), low-precision weights without float32 copies
            (``check_master_weights``), a tokenizer that is not the model's or cannot end an answer (``check_policy``),
            a source or rule of turn scores that does not apply (``turn_scores``).
    """

    _tag_names = ("trl", "grpo", "process-supervision")
    _name = "Process GRPO"

    def __init__(
        self,
        model: str | nn.Module,
        args: ProcessGRPOConfig,
        *,
        step_scorer: Scorer | None = None,
        turn_scorer: StepScorer | TurnFunction | None = None,
        verifier: Verifier | None = None,
        reward_funcs: RewardFunc | list[RewardFunc] | None = None,
        train_dataset: Dataset | IterableDataset | None = None,
        **trl_arguments: Any,
    ) -> None:
        self.step_advantages = StepAdvantages(args.method, args.method_kwargs)
        reward_funcs = reward_funcs if isinstance(reward_funcs, list) else [reward_funcs] if reward_funcs else []
        acts = bool(trl_arguments.get("tools") or trl_arguments.get("environment_factory"))
        scores = [one for one in (step_scorer, turn_scorer, args.turn_scores) if one is not None]
        if acts or trl_arguments.get("rollout_func"):
            args.reading().refuse_turns()
        check_sources(self.step_advantages, scores, verifier, reward_funcs, acts)
        self.step_advantages.check_scorer(step_scorer)
        check_datasets(
            args,
            train_dataset,
            trl_arguments.get("eval_dataset"),
            verified=verifier is not None or outcome_reward in reward_funcs,
            needs_gold=args.learns_from_outcome_only and not reward_funcs and not acts,
            with_tools=acts,
            environments=bool(trl_arguments.get("environment_factory")),
        )
        if isinstance(model, str) and trl_arguments.get("peft_config") is None:
            refuse_low_precision((args.model_init_kwargs or {}).get("dtype"), args, args.learning_rate)
        if verifier is not None:
            reward_funcs = [VerifierReward(self), *reward_funcs]
        self.process_scale = 1.0
        self.text_budget = args.gathered_texts or None
        self.last_rollouts: ScoredBatch | None = None
        self.verified_rows: list[ScoredRollout] = []
        self._sampled_for: list[dict[str, Any]] | None = None  # the rows whose completions are being generated
        self._scoring_of_batch: StartedScoring | ScoringInParts | None = None
        self._reports = EnvironmentReports([])
        self.in_step: TurnsInStep | None = None  # set by `in_step`
        self._told: list[Told] = []  # of the newest completions
        self._reported: list[Reported] = []
        self.samples_only = False  # set by `sampled`
        self._first_batch_seen = False
        self._outcome_rewards: Tensor | None = None
        self._credited: Tensor | None = None  # the steps of the newest batch that earn process credit; None = all
        super().__init__(
            model=model, reward_funcs=reward_funcs, args=args, train_dataset=train_dataset, **trl_arguments
        )
        check_policy(tokenizer_of(self), self.model)
        if self.optimizer is None:  # the caller's own optimizer may keep float32 copies
            check_master_weights(self.model, args, args.learning_rate)
        environments = kinds_of_environments(self)
        hide_from_policy(self, OWN_METHODS)
        own_rollouts = self.rollout_func is not None
        of_turns = turn_scores(args, turn_scorer, step_scorer is not None, environments, own_rollouts=own_rollouts)
        self.reading = args.reading()
        refuse_unopened(self.reading.thinking, self)
        sources = self.reading.sources(tokenizer_of(self), step_scorer, verifier)
        self.scoring = RolloutScoring(args.splitter(), tokenizer_of(self), *sources, of_turns)
        self.scoring.of_tokens.prompt_ids = partial(prompt_ids, self)
        self.scoring.of_tokens.log_probs = partial(policy_log_probs, self)
        logging.getLogger("trl.trainer.grpo_trainer").addFilter(not_about_unlabelled)
        if args.step_pattern is None and hasattr(step_scorer, "follow_separator"):
            step_scorer.follow_separator(args.step_separator)
        if verifier is not None and self.reading.verifier == "all":  # otherwise it is not shown the thinking
            tell_of_thoughts(verifier, self)
        if outcome_reward in reward_funcs:
            tell_of_thoughts(shared_verifier(), self)
        check_parts(self, step_scorer)
        for scorer in [step_scorer] if turn_scorer is step_scorer else [step_scorer, turn_scorer]:
            if hasattr(scorer, "attach"):
                scorer.attach(self)

    @property
    def acts(self) -> bool:
        """Whether tools, environments or a ``rollout_func`` may write in a rollout beside the policy."""
        return bool(self.tools) or self.rollout_func is not None

    def _generate(self, prompts):
        """As TRL's; the verifier and a judge begin while TRL computes log-probabilities, or samples other groups."""
        self._reports, self._prompts = EnvironmentReports(self.environments or []), prompts
        hide_from_policy(self, OWN_METHODS)
        output = super()._generate(prompts)
        if self.samples_only:
            raise Sampled(output)
        _, completion_ids, masks, completions, _, extra_fields, *_ = output
        self._told = told_by_trl(masks, completions, len(prompts), with_tools=bool(self.tools))
        turns = [num_turns(ids, one.policy_mask) for ids, one in zip(completion_ids, self._told, strict=True)]
        if self.rollout_func is None:
            self._reported = self._reports.of_rollouts(turns)
        else:
            self._reported = reported_by_rollout_func(extra_fields, turns)
        adds_columns = bool(extra_fields)  # a rollout_func may bring problems and solutions of its own
        if self._sampled_for is not None and not adds_columns and self._scoring_of_batch is None:
            self._scoring_of_batch = self._started_scoring(self._sampled_for, prompts, completion_ids)
        return output

    def _tool_call_loop(self, *args, **kwargs):
        """As TRL's; ranks keep step where a turn of one needs them all."""
        with in_step(self, super()._generate_single_turn):
            return super()._tool_call_loop(*args, **kwargs)

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, *args, **kwargs):
        """As TRL's; first the environments are asked for the reward of the last turn and the state before the next.

        With ``groups_at_once`` it is called for that many groups at a time, and scoring begins with the first.
        """
        self._reports.before_turn()
        if self.in_step is not None:
            return self.in_step.turn(prompt_ids, images, multimodal_fields, num_generations, *args, **kwargs)
        size, theirs = self.args.groups_at_once * num_generations, super()._generate_single_turn
        scored = self._sampled_for is not None and not self.samples_only
        if not scored or not size or size >= len(prompt_ids) or len(prompt_ids) % num_generations:
            return theirs(prompt_ids, images, multimodal_fields, num_generations, *args, **kwargs)
        batch = self._scoring_of_batch = ScoringInParts(self.scoring)

        def begun(rows: slice, completion_ids: list[list[int]]) -> None:
            started = self._started_scoring(self._sampled_for[rows], self._prompts[rows], completion_ids, alone=True)
            batch.parts.append(started)

        def sample(rows: slice) -> tuple:
            return theirs(prompt_ids[rows], images, multimodal_fields, num_generations, *args, **kwargs)

        return sampled_in_parts(sample, len(prompt_ids), size, begun)

    def _started_scoring(self, inputs, prompts, completion_ids_list, alone=False) -> StartedScoring:
        """``alone``: the policy wrote everything."""
        given = prompts if self.environments else [row["prompt"] for row in inputs]  # with the text that `reset` added
        return self.scoring.start(
            prompts=[prompt_text(prompt) for prompt in prompts],
            problems=[row.get("problem") or prompt_text(prompt) for row, prompt in zip(inputs, given, strict=True)],
            solutions=[gold_text(row.get("solution")) for row in inputs],
            completion_ids=completion_ids_list,
            policy_prompts=prompts,
            learning=self.model.training,
            told=None if alone else self._told,
            reports=None if alone else self._reported,
        )

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        """As TRL's; the completions are split and verified first."""
        if self.scoring.verifier is not None and "solution" not in inputs[0]:  # a stream may not name its columns
            raise ValueError(f"dataset: got columns {sorted(inputs[0])}, expected `solution` with the gold answer")
        if self._scoring_of_batch is None:
            self._scoring_of_batch = self._started_scoring(inputs, prompts, completion_ids_list)
        self.verified_rows = self._scoring_of_batch.verified()
        texts = readable(completions, self._told, self._scoring_of_batch.cut, with_tools=bool(self.tools))
        rewards_per_func = super()._calculate_rewards(inputs, prompts, texts, completion_ids_list)
        self._take_reported_verdicts()
        weighted = (rewards_per_func * self.reward_weights.to(rewards_per_func.device)).nansum(dim=1)
        unscorable = rewards_per_func.isnan().all(dim=1)
        self._outcome_rewards = weighted.masked_fill(unscorable, torch.nan)
        return rewards_per_func

    def _take_reported_verdicts(self) -> None:
        """Take over the verdicts that a reward function has reported; refuse other columns and metrics with our names.

        If they were left to TRL, two writers would write to one column and one metric.
        """
        columns, metrics = reported_by_rewards(self)
        statuses = columns.pop(STATUS_COLUMN, None)
        for column in OWN_COLUMNS:
            if column in columns:
                raise ValueError(
                    f"log_extra: got column {column!r}, which the trainer writes itself; expected another name"
                )
        if statuses is None:
            return
        for status in STATUSES:  # the trainer counts them over all ranks
            metrics.pop(f"verifier/{status}_frac", None)
        if self.scoring.verifier is None:
            self.verified_rows = with_statuses(self.verified_rows, statuses)
        elif not self._first_batch_seen:
            warnings.warn(
                f"a reward function reports {STATUS_COLUMN} beside verifier=: verifier= decides what is correct, and "
                "both are paid",
                stacklevel=2,
            )

    def _generate_and_score_completions(self, inputs):
        """As TRL's, with ``advantages`` (B,) replaced by (B, T)."""
        self._sampled_for, self._scoring_of_batch = inputs, None
        mode = "train" if self.model.training else "eval"
        num_generations = self.num_generations if mode == "train" else self.num_generations_eval
        first = self.accelerator.process_index * len(inputs)
        kept = kept_of_rank(self, len(inputs), num_generations)
        with undone_if_it_fails(self), texts_shortened(blanked(kept)):
            output = super()._generate_and_score_completions(inputs)
            self.verified_rows = self._scoring_of_batch.scored(self.verified_rows)
        self._sampled_for = self._scoring_of_batch = None
        rows: list[ScoredRollout] = gather_object(without_texts(self.reading.credited(self.verified_rows), kept))
        self._credited = credited_steps(rows)
        rollouts = step_rollouts(rows, self._outcome_rewards, num_generations)
        step_advantages, output["advantages"] = self._advantages(output, rollouts, slice(first, first + len(inputs)))
        sampled = sum(gather_object([self.scoring.sampled_tokens]))
        self.last_rollouts = ScoredBatch(rows, rollouts, step_advantages, mode, self.state.global_step, sampled)
        self._warn_without_separator(rows)
        self._log_rollouts(mode)
        return output

    get_off_policy_mask = staticmethod(off_policy_mask)

    def _get_per_token_logps_and_entropies(self, *args, **kwargs):
        """As TRL's, but on a CPU too, only completions go through the output head of a large vocabulary."""
        with completions_only_head(self.model.config.get_text_config().vocab_size):
            return super()._get_per_token_logps_and_entropies(*args, **kwargs)

    def _compute_loss(self, model, inputs):
        """As TRL's, with GSPO-token's ratios in place of one ratio per sequence."""
        with gspo_token(self, inputs) as inputs:
            return super()._compute_loss(model, inputs)

    def _advantages(
        self, output: dict[str, Tensor], rollouts: StepRollouts, local: slice
    ) -> tuple[Float[Tensor, "N K"], Float[Tensor, "B T"]]:
        """Step advantages of all ranks, and this rank's token advantages.

        Every token takes the advantage of its step; tokens that the policy did not write have 0.

        A token method gives token advantages itself; a step advantage is then the mean over the step's tokens.
        """
        advantages = self.step_advantages(
            rollouts,
            self.state.global_step,
            self.process_scale,
            remember=self.model.training,
            credited=self._credited,
        )
        mask = policy_tokens(output)
        if self.step_advantages.per_token:
            counts = rollouts.token_counts
            of_steps = tokens_to_step(advantages, counts) / counts.clamp(min=1)
            return of_steps, scattered(of_width(advantages[local], mask), mask)
        of_tokens = step_to_token(advantages[local], rollouts.token_counts[local], mask.size(1))
        return advantages, scattered(of_tokens, mask)

    def _log_rollouts(self, mode: str) -> None:
        """Our metrics beside TRL's, and the dense advantages in TRL's completions table."""
        batch, metrics, tables = self.last_rollouts, metrics_of(self, mode), tables_of(self)
        for name, value in rollout_metrics(batch.rollouts, batch.rows, batch.step_advantages).items():
            metrics[name].append(value)
        for name, value in self.scoring.seconds.items():
            metrics[f"{name}/seconds"].append(value)
        for name, value in scorer_metrics(self._over_ranks(self.scoring.scorer_stats)).items():
            metrics[name].append(value)
        lengths = batch.rollouts.step_lengths * batch.rollouts.step_mask
        means = (batch.step_advantages * lengths).sum(1) / lengths.sum(1).clamp(min=1)
        for name, value in self.scoring.learnt.items():
            metrics[f"prm/{name}"].append(value)
        logged = tables["advantages"]  # TRL has just appended its scalar ones
        for _ in range(min(len(batch.rows), len(logged))):
            logged.pop()
        logged.extend(means.tolist())
        tokenizer = self.scoring.tokenizer if self.log_completions else None
        for name, values in completion_columns(batch, self.acts, tokenizer).items():
            tables["extra"][name].extend(values)

    def _over_ranks(self, growth: dict[str, float]) -> dict[str, float]:
        """A judge's counts summed over all ranks, because they are billed together; other counts stay this rank's."""
        counts = {name: value for name, value in growth.items() if name.startswith("judge_")}
        if not counts or self.accelerator.num_processes == 1:
            return growth
        every = gather_object([counts])
        return growth | {name: sum(one[name] for one in every) for name in counts}

    def _save_checkpoint(self, model, trial) -> None:
        """As TRL's, with what the method remembers and the scorer has learnt beside the trainer's state."""
        if self.args.should_save:  # first, so that a checkpoint that is otherwise complete never lacks it
            save_own_state(self, checkpoint_folder(self, trial))
        super()._save_checkpoint(model, trial)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        load_policys_adapter(self.model if model is None else model, Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """As TRL's, plus our own state: every backend passes here when it resumes."""
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            load_own_state(self, Path(checkpoint))

    def _warn_without_separator(self, rows: list[ScoredRollout]) -> None:
        """Warn once, on the first batch, if the separator occurs in no completion."""
        splitter, self._first_batch_seen, seen = self.scoring.splitter, True, self._first_batch_seen
        if not seen and self.args.step_unit != "turn" and not any(splitter.occurs_in(row.text) for row in rows):
            wanted = f"pattern {splitter.pattern!r}" if splitter.pattern else f"separator {splitter.separator!r}"
            warnings.warn(
                f"the step {wanted} occurs in none of the first {len(rows)} completions, so each is one step; "
                f"set step_separator or step_pattern. First completion: {rows[0].text[:80]!r}",
                stacklevel=2,
            )
