"""Tools and environments of a policy in a recipe, by name, or the embedded tool world."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoTokenizer
from trl.models import unwrap_model_for_generation

from reward.dotted import resolve
from rlhf_prm.generation.requests import unit_seed
from rlhf_prm.rl.turns import num_turns
from rlhf_prm.runs.arguments import RecipeArguments
from rlhf_prm.runs.ignored import without_effect
from rlhf_prm.runs.sources import Sources
from rlhf_prm.settings import build, json_mapping

NOTHING = float("nan")
NOT_OF_THE_TOOL_WORLD = {  # with their defaults
    "world": "toyworld",
    "prm": None,
    "prm_family": "auto",
    "prm_placement": "replicate",
    "prm_kwargs": {},
    "gold_fraction": 1.0,
    "ceiling": False,
    "check_prm": False,
    "columns": {},
    "eval_dataset": None,
}


@dataclass
class ToolArguments:
    """The tools or the environment of the policy.

    Raises:
        ValueError: both tools and an environment beside no dataset, or a malformed mapping.
    """

    tools: list[str] | None = field(
        default=None, metadata={"help": "python (the sandbox), or dotted paths of functions with types and docstrings."}
    )
    tool_kwargs: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "JSON of keywords of the sandbox, e.g. '{\"seconds\": 5}'."}
    )
    environment: str | None = field(
        default=None, metadata={"help": "Dotted path of an environment class, as TRL's environment_factory."}
    )

    def __post_init__(self) -> None:
        self.tool_kwargs = json_mapping("tool_kwargs", self.tool_kwargs)
        if self.tool_kwargs and "python" not in (self.tools or []):
            raise ValueError("tool_kwargs: got keywords of the sandbox without tools: [python]")

    def trainer_arguments(self) -> dict[str, Any]:
        """``tools`` and ``environment_factory`` of a trainer.

        Raises:
            ValueError: a name that cannot be imported, or nothing at all.
        """
        if not self.tools and not self.environment:
            raise ValueError(
                "tools: got nothing beside a dataset, expected tools or an environment (recipes/grpo_prm.py trains a "
                "policy that has none)"
            )
        named = {"python": self._python} if "python" in (self.tools or []) else {}
        tools = [named[name]() if name in named else resolve(name, {}, "tools") for name in self.tools or []]
        environment = None if self.environment is None else resolve(self.environment, {}, "environment")
        return {"tools": tools or None, "environment_factory": environment}

    def _python(self) -> Callable[[str], str]:
        from rlhf_prm.sandbox.python_tool import PythonTool

        try:
            tool = PythonTool(**self.tool_kwargs)
        except TypeError as error:
            raise ValueError(f"tool_kwargs: {error}") from error
        tool.execute("")  # raises now if the machine lacks a required protection
        return tool.python


def tool_world(recipe: RecipeArguments, seed: int) -> tuple[Sources, dict[str, Any]]:
    """The embedded tool world: its parts, and the trainer's arguments that are its own.

    Its calculator is asked while the policy writes, so the rollouts come from a ``rollout_func``.
    """
    from rlhf_prm.toyworld.tool_world import ToolWorldSettings, build_tool_world
    from rlhf_prm.toyworld.verifier import ExactMatchVerifier

    for name, default in NOT_OF_THE_TOOL_WORLD.items():
        if getattr(recipe, name) != default:
            raise ValueError(
                f"{name}: got {getattr(recipe, name)!r} without a dataset, expected it to be left out: the tool world "
                "has none of it"
            )
    for sentence in without_effect(recipe):
        warnings.warn(sentence, stacklevel=2)
    settings = build(ToolWorldSettings, {"seed": seed, **recipe.world_settings}, "world_settings")
    world = build_tool_world(settings, recipe.stage_cache)
    tokenizer = AutoTokenizer.from_pretrained(world.policy_path)

    def evaluate(model: Any, limit: int | None) -> dict[str, float]:
        return world.evaluate(model, tokenizer, limit=limit or recipe.eval_limit)

    problems = world.train_problems
    sources = Sources(
        policy_path=str(world.policy_path),
        model_kwargs={"dtype": "float32"},
        tokenizer=tokenizer,
        step_scorer=None,
        verifier=ExactMatchVerifier(),
        train_dataset=Dataset.from_dict(
            {"prompt": [one.prompt for one in problems], "solution": [one.solution for one in problems]}
        ),
        evaluate=evaluate,
        world=world,
        eval_problems=len(world.eval_problems[: recipe.eval_limit]),
    )
    price = partial(price_of_calls, price=settings.price)
    price.__name__ = "price_of_calls"
    return sources, {"rollout_func": partial(world_rollouts, world=world), "reward_funcs": [price]}


def price_of_calls(
    completions: list[str], solution: list[str], calls: list[int], price: float, **_: Any
) -> list[float]:
    """What the calls of right answers cost (``ToolWorldSettings.outcome``): a reward function of TRL's."""
    from rlhf_prm.toyworld.verifier import final_answer

    rows = zip(completions, solution, calls, strict=True)
    return [-price * count if final_answer(text) == gold else 0.0 for text, gold, count in rows]


def world_rollouts(prompts: list[str], trainer: Any, *, world: Any) -> dict[str, Any]:
    """A ``rollout_func`` of the tool world: one rollout of every prompt, which the policy in training writes."""
    from rlhf_prm.toyworld.problems import ChainProblem
    from rlhf_prm.toyworld.tool_sampler import ToolSampler

    tokenizer, update = trainer.processing_class, trainer.state.global_step
    seed = unit_seed(trainer.args.seed, "tool world", update, trainer.accelerator.process_index)
    environments = [world.settings.environment(ChainProblem.parse(prompt), seed, i) for i, prompt in enumerate(prompts)]
    prompt_ids = tokenizer(prompts)["input_ids"]
    with unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator) as model, torch.no_grad():
        sampler = ToolSampler(model, tokenizer, max_new_tokens=trainer.max_completion_length)
        rollouts = sampler.rollouts(prompt_ids, 1, environments, seed=seed)
    masks = [[int(own) for own in one.written] for one in rollouts]
    turns = [num_turns(one.ids, mask) for one, mask in zip(rollouts, masks, strict=True)]
    earned = [one.environment.turn_rewards() for one in rollouts]
    return {
        "prompt_ids": prompt_ids,
        "completion_ids": [one.ids for one in rollouts],
        "logprobs": None,
        "env_mask": masks,
        "calls": [one.calls for one in rollouts],
        "turn_rewards": [[*row, *[NOTHING] * count][:count] for row, count in zip(earned, turns, strict=True)],
        "state_keys": [one.environment.state_keys()[:count] for one, count in zip(rollouts, turns, strict=True)],
    }
