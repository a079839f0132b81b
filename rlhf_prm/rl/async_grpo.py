"""Dense advantages in TRL's AsyncGRPO: PRM, judge and verifier score in the rollout worker, not in the trainer.

TRL's worker is a separate process without a GPU: a PRM is behind a server (``load_prm(placement="server")``), a
judge behind an endpoint. It scores a group as soon as the group is complete. A sample's advantage is there one number
of type ``TokenAdvantages``, which also carries one advantage per token; TRL's packing is replaced so that it uses them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import TrainerCallback
from trl.experimental.async_grpo import AsyncGRPOConfig, AsyncGRPOTrainer, async_rollout_worker as their_worker

from reward import step_to_token
from reward.reward_functions import gold_text
from reward.verifier import Verifier
from rlhf_prm.prompts import last_user_message
from rlhf_prm.rl.master_weights import refuse_low_precision
from rlhf_prm.rl.parts import Reading, credited_steps
from rlhf_prm.rl.rollout_scoring import RolloutScoring, ScoredRollout, step_rollouts
from rlhf_prm.rl.step_advantages import StepAdvantages
from rlhf_prm.rl.thoughts import opens_thought, refuse_unopened, tell_in_thought
from rlhf_prm.rl.trl_seam import pack_token_advantages, prompts_of_async, use_rollout_loop
from rlhf_prm.steps import StepSplitter


class TokenAdvantages(float):
    """The mean advantage of a sample, the number that TRL expects, with ``tokens``: one for each of its token ids."""

    tokens: np.ndarray

    def __new__(cls, tokens: np.ndarray, mask: np.ndarray) -> "TokenAdvantages":
        made = super().__new__(cls, float((tokens * mask).sum() / max(1, mask.sum())))
        made.tokens = tokens
        return made

    def __reduce__(self) -> tuple:
        return _restored, (float(self), self.tokens)


def _restored(mean: float, tokens: np.ndarray) -> TokenAdvantages:
    made = float.__new__(TokenAdvantages, mean)
    made.tokens = tokens
    return made


@dataclass(frozen=True)
class SentVersions:
    """The updates at which TRL sends weights to the policy that samples: the first, then every ``every``-th.

    Args:
        first: the version that TRL gives to the weights it sends at the beginning; a resumed run counts on.
        update: the updates done at the beginning, more than 0 in a resumed run.
        every: ``weight_sync_steps``.
    """

    first: int = 1
    update: int = 0
    every: int = 1

    def update_of(self, version: int) -> int:
        """The update at which this version of the policy began to sample."""
        later = version - self.first
        return (self.update // self.every + later) * self.every if later > 0 else self.update


class _TellSentVersions(TrainerCallback):
    """Tells the credit at which update a run begins. It comes before TRL's own callback, which starts the worker."""

    def __init__(self, trainer: "ProcessAsyncGRPOTrainer", credit: "ProcessCredit") -> None:
        self.trainer, self.credit = trainer, credit

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        first = self.trainer.model_version + 1
        self.credit.sent_versions = SentVersions(first, state.global_step, args.weight_sync_steps)


@dataclass
class ProcessCredit:
    """Scores groups in the rollout worker. It is a TRL reward function that returns the verifier's rewards.

    It is sent to another process, so scorer and verifier are given as functions that build them there.

    Args:
        method, method_kwargs: as ``ProcessGRPOConfig``'s.
        scorer: () → a step scorer; None for method "outcome".
        verifier: () → a verifier.
        splitter, reading: how completions are cut into steps, and which part of them the PRM and the verifier read.

    Attributes:
        in_thought: whether completions begin inside a thought; the trainer finds out from the prompts.
        sent_versions: which update each version of the policy that samples belongs to; the trainer sets it too.

    Raises:
        ValueError: the method or a keyword is unknown, the method remembers batches or reads token scores, or a scorer
            that it needs is missing.
    """

    method: str
    scorer: Callable[[], Any] | None
    verifier: Callable[[], Verifier]
    method_kwargs: dict[str, Any] = field(default_factory=dict)
    splitter: StepSplitter = field(default_factory=StepSplitter)
    reading: Reading = field(default_factory=Reading)
    __name__ = "verifier"

    def __post_init__(self) -> None:
        advantages = StepAdvantages(self.method, self.method_kwargs)
        if advantages.has_memory or advantages.per_token:
            why = "remembers whole batches" if advantages.has_memory else "reads the policy's token scores"
            raise ValueError(
                f"method {self.method!r} {why}, and a rollout worker sees one group at a time and no policy; "
                "expected another, such as 'immediate'"
            )
        if self.scorer is None and self.method != "outcome":
            raise ValueError(f"method {self.method!r} needs step scores: pass scorer=partial(load_prm, …)")
        self.in_thought, self.sent_versions = False, SentVersions()
        self._scoring: RolloutScoring | None = None
        self._rows: list[ScoredRollout] = []

    def prepare(self, tokenizer: Any) -> None:
        """Build scorer and verifier; called in the worker."""
        self.reading.check_tokenizer(tokenizer)
        scorer = None if self.scorer is None else self.scorer()
        if scorer is not None and not hasattr(scorer, "score"):
            raise ValueError(f"scorer: got {type(scorer).__name__}, expected one with score(problems, steps)")
        if self.splitter.pattern is None and hasattr(scorer, "follow_separator"):
            scorer.follow_separator(self.splitter.separator)
        verifier = self.verifier()
        shown = self.reading.of_verifier(verifier)
        if self.in_thought and self.reading.verifier == "all":  # otherwise it is not shown the thinking
            tell_in_thought(verifier)
        self._scoring = RolloutScoring(self.splitter, tokenizer, self.reading.of_scorer(scorer), shown)

    def __call__(
        self, prompts: list, completion_ids: list[list[int]], solution: Sequence | None = None, **columns: Any
    ) -> list[float | None]:
        """Scores one group and returns the verifier's rewards."""
        if self._scoring is None:
            raise ValueError("ProcessCredit: got a group before prepare(tokenizer), expected the dense rollout worker")
        asked = [last_user_message(prompt) for prompt in prompts]
        golds = [None] * len(asked) if solution is None else [gold_text(one) for one in solution]
        rows = self._scoring(asked, list(columns.get("problem") or asked), golds, completion_ids, prompts)
        self._rows = self.reading.credited(rows)
        return [row.reward for row in rows]

    def token_advantages(self, outcome_rewards: Tensor, update: int) -> tuple[list[Tensor], list[ScoredRollout]]:
        """Advantages (T_i,) of each rollout of the group scored last, equal to those of the synchronous trainer."""
        rows = self._rows
        rollouts = step_rollouts(rows, outcome_rewards, len(rows))
        advantages = StepAdvantages(self.method, self.method_kwargs)(rollouts, update, credited=credited_steps(rows))
        counts = [sum(row.lengths) for row in rows]
        tokens = step_to_token(advantages, rollouts.step_lengths, max(counts))
        return [row[:count] for row, count in zip(tokens, counts, strict=True)], rows

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds that each part of the last group's scoring took."""
        return {} if self._scoring is None else self._scoring.seconds

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_scoring": None, "_rows": []}


class DenseRolloutLoop(their_worker._AsyncRolloutLoop):
    """TRL's loop of the rollout worker, which gives each sample an advantage for every token."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.credit.prepare(self.tokenizer)

    @property
    def credit(self) -> ProcessCredit:
        """The reward function that scores steps."""
        return next(one for one in self.reward_funcs if isinstance(one, ProcessCredit))

    async def _score_group(self, group: Any) -> list[Any]:
        samples = await super()._score_group(group)
        if len(samples) != len(group.completions):
            raise ValueError(
                f"group {group.group_id}: got {len(samples)} training rows for {len(group.completions)} completions, "
                "expected one for each: dense advantages are for single turns without tools"
            )
        outcomes = torch.tensor([sample.metrics["reward"] for sample in samples])
        tokens, rows = self.credit.token_advantages(
            outcomes, self.credit.sent_versions.update_of(int(group.model_version))
        )
        return [
            replace(
                sample,
                advantage=token_aligned(sample, own.numpy()),
                metrics=sample.metrics | _metrics(row) | {f"{k}/seconds": v for k, v in self.credit.seconds.items()},
            )
            for sample, own, row in zip(samples, tokens, rows, strict=True)
        ]


def token_aligned(sample: Any, own: np.ndarray) -> TokenAdvantages:
    """A completion's token advantages, placed at the positions of its tokens in the sample.

    Raises:
        ValueError: the sample has another number of trained tokens.
    """
    mask = sample.completion_mask.astype(bool)
    if int(mask.sum()) != len(own):
        raise ValueError(
            f"got {int(mask.sum())} trained tokens in a sample of {len(own)} completion tokens, expected all of them"
        )
    tokens = np.zeros(len(mask), np.float32)
    tokens[mask] = own
    return TokenAdvantages(tokens, mask)


def _metrics(row: ScoredRollout) -> dict[str, float]:
    scores = np.array(row.scores)
    known = scores[~np.isnan(scores)]
    return {
        "process/step_score/mean": float(known.mean()) if len(known) else float("nan"),
        "process/num_steps/mean": float(len(row.lengths)),
        "process/unscored_frac": 1 - len(known) / len(scores),
    }


class ProcessAsyncGRPOTrainer(AsyncGRPOTrainer):
    """TRL's AsyncGRPO with one advantage per token, computed in the rollout worker from step scores and a verifier.

    TRL logs how stale the policy of a sample is (``sample/staleness_mean``) and bounds it (``max_staleness``). At
    staleness 0 the advantages are those of ``ProcessGRPOTrainer`` on the same rollouts.

    Args:
        credit: how groups are scored.
        reward_funcs: further TRL reward functions; they add to the outcome with weight 1.
        model, args, train_dataset, …: as TRL's.

    Raises:
        ValueError: ``tools``, an ``environment_factory`` or a ``rollout_worker`` is given; low-precision weights
            without float32 copies (``refuse_low_precision``); prompts that open a thought without ``think_opened``.
    """

    _tag_names = ("trl", "async-grpo", "process-supervision")
    _name = "Process AsyncGRPO"

    def __init__(
        self,
        model: Any,
        args: AsyncGRPOConfig,
        *,
        credit: ProcessCredit,
        reward_funcs: Callable[..., Any] | list[Callable[..., Any]] | None = None,
        **trl_arguments: Any,
    ) -> None:
        for name in ("tools", "environment_factory", "rollout_worker"):
            if trl_arguments.get(name):
                raise ValueError(
                    f"{name}: got one, expected none: dense advantages need single turns and TRL's own worker"
                )
        more = reward_funcs if isinstance(reward_funcs, list) else [reward_funcs] if reward_funcs else []
        if isinstance(model, str) and trl_arguments.get("peft_config") is None:
            dtype = (args.model_init_kwargs or {}).get("dtype", args.dtype)
            refuse_low_precision(dtype, args, args.learning_rate)
        pack_token_advantages()
        trl_arguments["callbacks"] = [_TellSentVersions(self, credit), *(trl_arguments.get("callbacks") or [])]
        super().__init__(model, args=args, reward_funcs=[credit, *more], **trl_arguments)
        rows = trl_arguments.get("train_dataset")
        prompts = prompts_of_async(self.processing_class, args.chat_template_kwargs, rows)
        refuse_unopened(credit.reading.thinking, prompts)
        credit.in_thought = opens_thought(prompts)
        if self.rollout_worker is not None:
            use_rollout_loop(self.rollout_worker, DenseRolloutLoop)
