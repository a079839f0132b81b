"""Settings of the trainers: TRL's own, plus how step scores become advantages."""

import copy
from dataclasses import dataclass, field
from typing import Any, ClassVar

from trl import GRPOConfig

from reward import TOKEN_METHODS
from rlhf_prm.merged_steps import RULES as MERGE_RULES
from rlhf_prm.rl.parts import Reading
from rlhf_prm.rl.turn_scores import RULES, refuse_unread
from rlhf_prm.steps import StepSplitter
from rlhf_prm.thinking import PARTS, Thinking

# TRL checks these only at the first loss, after the first generation; a typo should be found earlier.
_TRL_CHOICES = {
    "loss_type": ("grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo", "vespo"),
    "importance_sampling_level": ("token", "sequence"),
    "vllm_mode": ("colocate", "server"),
    "vllm_importance_sampling_mode": ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask"),
}
STEP_UNITS = ("separator", "turn")
OF_CUTTING = ("step_separator", "step_pattern", "step_limit", "step_merge")
NEVER = r"(?!)"  # a pattern that matches nowhere


@dataclass
class ProcessGRPOConfig(GRPOConfig):
    """``trl.GRPOConfig`` with a method that turns step scores and outcomes into step advantages.

    Args:
        method: a name in ``reward.METHODS``, or the dotted path of a function
            ``method(rollouts: StepRollouts, **keywords) -> (B, K)``.
        method_kwargs: its keywords. A number may be a schedule ``{start, end, updates, kind}``, see
            ``reward.scheduled``. On the command line: JSON.
        step_separator: the text between two steps.
        step_pattern: a regular expression in place of ``step_separator``.
        step_limit: the most steps of a completion; neighbouring ones are merged until it holds. None = no limit.
        step_merge: "length" (the shortest neighbours first) or "breaks" (those that begin with "Wait", "So", … last).
        think_tags: [opening, closing] tag of a reasoning model's thinking, mostly ["<think>", "</think>"]; a step ends
            there. None: thinking and answer are not distinguished.
        think_opened: the prompt ends with the opening tag, so that a completion begins in the middle of thinking.
        prm_reads, verifier_reads, credit_reads: "all", "thinking" or "answer". Steps that the PRM does not read have no
            score; those without credit have their outcome-only advantage. In PPO they have no process reward of their
            own, but GAE passes on to them what later steps earn.
        gathered_texts: about how many completions of a generation batch have their texts sent to every process, for the
            completions table, the guard and labelling; 0 = all. Numbers are always sent.
        groups_at_once: how many groups of a process are sampled together; while the next ones are sampled, the
            verifier, a judge or a PRM behind a server works on them; 0 = all together. See ``scoring_in_parts``.
        step_unit: "separator", or "turn": each turn of a policy that uses tools is one step.
        turn_scores: where turn scores come from, which are merged into the step scores: "environment" (its
            ``turn_rewards()``), or the dotted path of a function ``(problems, turns) -> scores``; None = there are
            none, or they come from the trainer's ``turn_scorer``.
        turn_rule: how they are merged. If s is the score of a turn and p that of a step in it, the step gets: "replace"
            s; "last" s at the turn's last step, p at the others; "mean" (p + s) / 2; "min" min(p, s). The steps of a
            turn without a score keep theirs.
        turn_range: [lowest, highest] possible score of a turn; it is mapped to [0, 1].

    ``scale_rewards`` and ``multi_objective_aggregation`` belong to TRL's sequence-level advantages, which the method
    replaces: anything but their defaults is refused. ``reward_weights`` holds the weight of the verifier first, then
    one for each further reward function. ``importance_sampling_level="sequence"`` is GSPO-token (see
    ``sequence_ratios``) for every method but "outcome", and ``remove_unused_columns`` must stay False.

    Raises:
        ValueError: a value that TRL or this class does not know.
    """

    _VALID_DICT_FIELDS: ClassVar[list[str]] = [*GRPOConfig._VALID_DICT_FIELDS, "method_kwargs"]  # type: ignore[misc]

    method: str = field(
        default="trusted",
        metadata={"help": "How step scores become advantages: a name in reward.METHODS or a dotted path."},
    )
    method_kwargs: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "Keywords of the method, as JSON; a number may be a schedule {start, end, updates, kind}."},
    )
    step_separator: str = field(default="\n\n", metadata={"help": "The text between two steps."})
    step_pattern: str | None = field(
        default=None, metadata={"help": "A regular expression whose matches end a step, in place of step_separator."}
    )

    step_limit: int | None = field(
        default=None, metadata={"help": "Most steps of a completion; beyond it neighbouring steps are merged."}
    )
    step_merge: str = field(default="length", metadata={"help": f"Which steps are merged: {', '.join(MERGE_RULES)}."})
    think_tags: list[str] | None = field(
        default=None, metadata={"help": "Opening and closing tag of thinking, e.g. <think> </think>."}
    )
    think_opened: bool = field(default=False, metadata={"help": "The prompt ends with the opening tag."})
    prm_reads: str = field(default="all", metadata={"help": f"What the PRM reads: {', '.join(PARTS)}."})
    verifier_reads: str = field(default="all", metadata={"help": f"What the verifier reads: {', '.join(PARTS)}."})
    credit_reads: str = field(default="all", metadata={"help": f"What earns process credit: {', '.join(PARTS)}."})

    gathered_texts: int = field(
        default=256, metadata={"help": "Completions of a batch whose texts reach every process; 0 = all."}
    )

    groups_at_once: int = field(
        default=0, metadata={"help": "Groups that a process samples together, and scores while it goes on; 0 = all."}
    )

    step_unit: str = field(default="separator", metadata={"help": "What a step is: separator (see there) or turn."})
    turn_scores: str | None = field(
        default=None, metadata={"help": "Scores of whole turns: environment, or the dotted path of a function."}
    )
    turn_rule: str = field(default="replace", metadata={"help": f"How turn scores are merged: {', '.join(RULES)}."})
    turn_range: list[float] = field(
        default_factory=lambda: [0.0, 1.0], metadata={"help": "Lowest and highest score of a turn."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("gathered_texts", "groups_at_once"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected 0 (all) or more")
        self.step_separator = self.step_separator.replace("\\n", "\n")  # as typed on a command line
        self.splitter()
        self.reading()
        if self.method_kwargs is None:
            self.method_kwargs = {}
        if not isinstance(self.method_kwargs, dict):
            raise ValueError(f"method_kwargs: got {self.method_kwargs!r}, expected a mapping such as {{'gamma': 0.9}}")
        for name, choices in _TRL_CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}: got {getattr(self, name)!r}, expected one of {', '.join(choices)}")
        for name, default in (("scale_rewards", "group"), ("multi_objective_aggregation", "sum_then_normalize")):
            if getattr(self, name) != default:
                raise ValueError(
                    f"{name}: got {getattr(self, name)!r}, expected {default!r}: the method (here {self.method!r}) "
                    "does the normalisation; choose it by method and method_kwargs"
                )
        if self.remove_unused_columns:
            raise ValueError(
                "remove_unused_columns: got True, expected False: it drops `solution`, `problem` and what reward "
                "functions read"
            )
        self._check_turns()
        if self.use_transformers_continuous_batching and (self.bf16 or self.fp16) and self.deepspeed_plugin is None:
            raise ValueError(
                "use_transformers_continuous_batching: got True with bf16 or fp16, expected float32 training "
                "(bf16: false) or DeepSpeed: TRL casts the trained weights themselves for it, and small updates then "
                "round away; use_vllm: true generates faster and leaves them alone"
            )

    def _check_turns(self) -> None:
        for name, choices in (("step_unit", STEP_UNITS), ("turn_rule", tuple(RULES))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}: got {getattr(self, name)!r}, expected one of {', '.join(choices)}")
        for_verifier = self.verifier_reads != "all" and self.prm_reads == self.credit_reads == "all"
        cutting = OF_CUTTING if for_verifier else (*OF_CUTTING, "think_tags")
        for name in cutting if self.step_unit == "turn" else ():
            if (value := getattr(self, name)) != getattr(ProcessGRPOConfig, name):
                raise ValueError(
                    f"step_unit: got 'turn' beside {name} {value!r}, expected one of the two: a turn is one step, "
                    "which is neither cut nor merged (think_tags may serve the verifier alone, by verifier_reads)"
                )
        if self.turn_scores is not None:
            refuse_unread(self, self.turn_scores)
        if len(self.turn_range) != 2 or not self.turn_range[0] < self.turn_range[1]:
            raise ValueError(f"turn_range: got {self.turn_range}, expected [lowest, highest]")

    @property
    def learns_from_outcome_only(self) -> bool:
        """Whether the step scores reach no advantage."""
        return self.method == "outcome"

    @property
    def gives_token_advantages(self) -> bool:
        """Whether the advantages of one rollout's tokens may differ."""
        return self.method != "outcome"

    @property
    def reads_tokens_only(self) -> bool:
        """Whether the advantages come from token scores, so that step scores reach none of them."""
        return self.method in TOKEN_METHODS

    @property
    def label(self) -> str:
        """The name of this run in tables and reports."""
        return self.method

    def baseline(self, method: str) -> "ProcessGRPOConfig":
        """A copy that trains by ``method`` with its defaults.

        Raises:
            ValueError: the method cannot use the turn scores of these settings.
        """
        other = copy.deepcopy(self)
        other.method, other.method_kwargs = method, {}
        other._check_turns()
        return other

    def splitter(self) -> StepSplitter:
        """The ``StepSplitter`` these settings describe."""
        if self.step_unit == "turn":
            return StepSplitter(pattern=NEVER)
        return StepSplitter(
            separator=self.step_separator,
            pattern=self.step_pattern,
            limit=self.step_limit,
            merge=self.step_merge,
            thinking=self._thinking(),
        )

    def reading(self) -> Reading:
        """Which part of a completion the PRM and the verifier read, and which part earns credit."""
        return Reading(self._thinking(), self.prm_reads, self.verifier_reads, self.credit_reads)

    def _thinking(self) -> Thinking | None:
        if self.think_tags is None:
            if self.think_opened:
                raise ValueError("think_opened: got True without think_tags, expected the two tags")
            return None
        if len(self.think_tags) != 2:
            raise ValueError(f"think_tags: got {self.think_tags}, expected two: the opening and the closing one")
        begin, end = self.think_tags
        return Thinking(begin, end, opened=self.think_opened)
