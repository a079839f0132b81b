"""build_tool_world: chains of operations, a calculator to be asked at a price, and a policy that has seen it used.

The outcome is sparse: a right answer in the policy's last turn is worth 1, less the price of its calls. Every turn can
be checked exactly (``exact_turn_scores``), and the calculator itself says something of its calls (``turn_rewards``).
"""

import os
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from rlhf_prm.toyworld.apart import found_or_built_apart, is_one_of_several
from rlhf_prm.toyworld.calculator import Calculator
from rlhf_prm.toyworld.policy import IGNORED, fine_tuned_policy, save_policy
from rlhf_prm.toyworld.problems import ChainProblem, draw_splits
from rlhf_prm.toyworld.stages import Stage, StageCache
from rlhf_prm.toyworld.tokenizer import toy_tokenizer
from rlhf_prm.toyworld.tool_demonstrator import ASKS, ToolDemonstrator
from rlhf_prm.toyworld.tool_sampler import ToolSampler
from rlhf_prm.toyworld.tool_turns import TOOL_WORDS, ToolRollout, exact_turn_scores, verdict

POLICY_SETTINGS = (
    *("seed", "operations", "asks", "error_share", "timeout_share", "eval_problems"),
    *("sft_updates", "sft_batch", "sft_learning_rate"),
)


@dataclass(frozen=True)
class ToolWorldSettings:
    """What to build. Equal settings give equal worlds; another seed gives an independent one.

    Args:
        operations: fewest and most operations in a chain.
        asks: share of the operations at which the demonstrator asks.
        price: what a call takes off the reward of a right answer.
        error_share, timeout_share: how often the calculator fails.
        train_problems, eval_problems: prompts for reinforcement learning, and held-out ones.
        sft_updates, sft_batch, sft_learning_rate: supervised fine-tuning on demonstrations.
        max_completion_length: most tokens of a rollout, the tool's included.

    Raises:
        ValueError: a number that makes no world.
    """

    seed: int = 0
    operations: tuple[int, int] = (2, 3)
    asks: float = ASKS
    price: float = 0.02
    error_share: float = 0.05
    timeout_share: float = 0.05
    train_problems: int = 4096
    eval_problems: int = 1024
    sft_updates: int = 400
    sft_batch: int = 32
    sft_learning_rate: float = 4e-3
    max_completion_length: int = 64

    def __post_init__(self) -> None:
        Calculator(self.error_share, self.timeout_share)  # refuses shares that are none
        if not 0.0 <= self.asks <= 1.0:
            raise ValueError(f"asks: got {self.asks}, expected a share between 0 and 1")
        if not 1 <= self.operations[0] <= self.operations[1] or self.price < 0:
            raise ValueError(
                f"got operations={self.operations} and price={self.price}, expected a fewest and a most of at least 1, "
                "and a price of at least 0"
            )
        for field in fields(self):
            if field.type in ("int", int) and field.name != "seed" and getattr(self, field.name) < 1:
                raise ValueError(f"{field.name}: got {getattr(self, field.name)}, expected at least 1")

    def environment(self, problem: ChainProblem, *draw: object) -> Calculator:
        """A calculator for a rollout of this problem; equal ``draw``, equal failures."""
        calculator = Calculator(self.error_share, self.timeout_share, seed=f"{self.seed} {draw}")
        calculator.reset(problem.prompt)
        return calculator

    def outcome(self, problem: ChainProblem, rollout: ToolRollout) -> float:
        """What is paid for a rollout: 1 for a right answer, less the price of its calls; 0 for a wrong one.

        A wrong answer does not pay for its calls: in a group of wrong answers nothing but the price would tell rollouts
        apart, and where advantages are divided by their deviation it would count as much as an answer.
        """
        return verdict(problem, rollout) * (1 - self.price * rollout.calls)


@dataclass(frozen=True)
class ToolWorld:
    """A built tool world: a policy's checkpoint, and problems to train and to be measured on."""

    settings: ToolWorldSettings
    policy_path: Path
    train_problems: list[ChainProblem]
    eval_problems: list[ChainProblem]
    stage: Stage

    def evaluate(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, seed: int = 0, limit: int | None = None
    ) -> dict[str, float]:
        """One seeded rollout of each of the first ``limit`` held-out problems (None = all).

        Returns ``accuracy``, ``process_accuracy`` (every turn right), ``outcome`` (what would be paid), ``calls`` per
        rollout and the share of calls that were ``useful``.
        """
        sampler = ToolSampler(model, tokenizer, max_new_tokens=self.settings.max_completion_length)
        problems = self.eval_problems[:limit]
        environments = [self.settings.environment(p, "evaluation", i) for i, p in enumerate(problems)]
        prompts = tokenizer([problem.prompt for problem in problems]).input_ids
        rollouts = sampler.rollouts(prompts, 1, environments, seed=seed)
        pairs = list(zip(problems, rollouts, strict=True))
        paid = [reward for rollout in rollouts for reward in rollout.environment.turn_rewards()]
        return {
            "accuracy": _mean([verdict(*pair) for pair in pairs]),
            "process_accuracy": _mean([float(all(exact_turn_scores(*pair))) for pair in pairs]),
            "outcome": _mean([self.settings.outcome(*pair) for pair in pairs]),
            "calls": _mean([float(rollout.calls) for rollout in rollouts]),
            "useful": _mean([float(reward == 1.0) for reward in paid]),
        }


def build_tool_world(settings: ToolWorldSettings, root: str | os.PathLike[str] = "runs/cache") -> ToolWorld:
    """The world these settings describe; its policy is reused where it is under ``root`` already.

    One of several ranks has it built by a process of its own (``apart``).
    """
    world_in = partial(_world_in, settings=settings)
    if is_one_of_several():
        return found_or_built_apart(world_in, settings, root, "--tools")
    return world_in(StageCache(root))


def _world_in(cache: StageCache, *, settings: ToolWorldSettings) -> ToolWorld:
    sizes = {
        "eval": settings.eval_problems,
        "sft": settings.sft_updates * settings.sft_batch,
        "train": settings.train_problems,
    }
    splits = draw_splits(settings.seed, settings.operations, sizes)
    chosen = {name: value for name, value in asdict(settings).items() if name in POLICY_SETTINGS}
    stage = cache.stage("tool-policy", chosen, partial(_build_policy, settings, splits["sft"]))
    return ToolWorld(settings, stage.path, splits["train"], splits["eval"], stage)


def tool_tokenizer() -> PreTrainedTokenizerFast:
    """The toy world's tokenizer with the words of calls and results."""
    return toy_tokenizer(TOOL_WORDS)


def _build_policy(settings: ToolWorldSettings, problems: Sequence[ChainProblem], folder: Path) -> None:
    tokenizer, demonstrator = tool_tokenizer(), ToolDemonstrator(settings.seed, settings.asks)
    rng = random.Random(f"tool demonstrations {settings.seed}")
    rows = []
    for index, problem in enumerate(problems):
        environment = settings.environment(problem, "demonstration", index)
        rows.append(_tokens(tokenizer, problem.prompt, demonstrator.conversation(problem, environment, rng)))
    policy = fine_tuned_policy(
        tokenizer,
        rows,
        seed=settings.seed,
        batch_size=settings.sft_batch,
        learning_rate=settings.sft_learning_rate,
    )
    save_policy(policy, tokenizer, folder)


def _tokens(
    tokenizer: PreTrainedTokenizerFast, prompt: str, texts: Sequence[tuple[str, bool]]
) -> tuple[list[int], list[int]]:
    """The ids of a demonstration, and its labels: what the tool wrote is not learned."""
    ids = tokenizer(prompt).input_ids
    labels = [IGNORED] * len(ids)
    for text, own in texts:
        part = tokenizer(text).input_ids
        ids, labels = ids + part, labels + (part if own else [IGNORED] * len(part))
    return [*ids, tokenizer.eos_token_id], [*labels, tokenizer.eos_token_id]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
