"""GRPO and PPO on scripted completions, on as many ranks as the process is one of, and what came out."""

import itertools
import os
import random
import zlib
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from datasets import Dataset
from peft import LoraConfig
from trl import GRPOTrainer

from rlhf_prm.prm import load_prm
from rlhf_prm.prm.token_model import load_token_model
from rlhf_prm.prm_training.implicit import ImplicitPRM, ImplicitSettings
from rlhf_prm.prm_training.implicit_models import AdapterModel, TwoModels
from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.rl.live_values import LiveMonteCarloScorer
from rlhf_prm.rl.ppo import ProcessPPOTrainer
from rlhf_prm.rl.ppo_config import ProcessPPOConfig
from tests.distributed.implicit_run import models_in
from tests.tiny import WORDS, DigitVerifier, HashScorer, tiny_config, tiny_dataset, tiny_policy, tiny_tokenizer
from tests.tiny_tools import call, tool_policy, tool_tokenizer

ROLLOUTS = 8  # per update, over all ranks
BLANK_LINE, END = WORDS.index("\n\n"), WORDS.index("<eos>")


def completion(prompt: str, row: int, update: int) -> list[int]:
    """A ragged completion that depends on where in the whole batch it stands, and on nothing of the rank."""
    if update == 1 and row < ROLLOUTS // 2:
        prompt, row = "", 0  # the first rank has one rollout to score, the second has four
    draw = random.Random(zlib.crc32(f"{prompt}|{row}|{update}".encode()))
    length = draw.randint(1, 14 if row % 2 else 5)
    ids = [
        BLANK_LINE if i and draw.random() < 0.3 else draw.randrange(BLANK_LINE + 1, len(WORDS)) for i in range(length)
    ]
    return [*ids, END] if draw.random() < 0.7 else ids


def scripted(prompts: list[str], trainer) -> dict:
    """A TRL ``rollout_func``: no sampling, so that one rank and many see the same rollouts."""
    first = trainer.accelerator.process_index * len(prompts)
    return {
        "prompt_ids": [trainer.processing_class(prompt)["input_ids"] for prompt in prompts],
        "completion_ids": [completion(p, first + i, trainer.state.global_step) for i, p in enumerate(prompts)],
        "logprobs": None,
    }


def trainer_of(
    algorithm: str,
    folder: Path,
    scorer=None,
    rollouts=scripted,
    dataset=None,
    adapter=None,
    policy=tiny_policy,
    tokenizer=tiny_tokenizer,
    tools=None,
    **settings,
):
    """A trainer of 3 updates on 8 rollouts; ``algorithm`` is "grpo" (one group that spans the ranks) or "ppo".

    ``rollouts=None`` samples from the policy with transformers' generate.
    """
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    common = dict(per_device_train_batch_size=ROLLOUTS // ranks, save_strategy="steps", save_steps=2)
    common |= {"learning_rate": 1e-2, "lr_scheduler_type": "constant"} | settings
    if algorithm == "grpo":
        trainer_class = ProcessGRPOTrainer
        config = tiny_config(folder, **({"num_generations": ROLLOUTS} | common))
    else:
        common |= dict(num_generations=1, critic_learning_rate=1e-2, lam=0.9, gamma=0.99)
        trainer_class, config = ProcessPPOTrainer, tiny_config(folder, ProcessPPOConfig, **common)
    return trainer_class(
        model=policy(),
        args=config,
        train_dataset=dataset or tiny_dataset(),
        processing_class=tokenizer(),
        step_scorer=scorer or HashScorer(),
        verifier=DigitVerifier(),
        rollout_func=rollouts,
        tools=tools,
        peft_config=adapter,
    )


def run(algorithm: str, folder: Path, scorer=None, resume: bool = False, **settings) -> dict:
    """Trains and gives the numbers that must not depend on the ranks."""
    trainer = trainer_of(algorithm, folder, scorer, **settings)
    advantages, generate, scorer_tokens = [], trainer._generate_and_score_completions, 0

    def keep(inputs):
        nonlocal scorer_tokens
        output = generate(inputs)
        scorer_tokens += trainer.last_rollouts.scorer_tokens
        advantages.append(trainer.last_rollouts.step_advantages.tolist())
        return output

    trainer._generate_and_score_completions = keep
    trainer.train(resume_from_checkpoint=str(folder / "checkpoint-2") if resume else None)
    trainer.save_model(str(folder / ("resumed" if resume else "policy")))
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    named = ("loss", "grad_norm", "reward", "critic/value_loss", "critic/explained_variance", "critic/return")
    return {
        "logs": [{name: entry[name] for name in named if name in entry} for entry in logs],
        "step_advantages": advantages,
        "scorer_tokens": scorer_tokens,
        "world_size": trainer.accelerator.num_processes,
        "type": str(trainer.accelerator.distributed_type),
        "backend": dist.get_backend() if dist.is_initialized() else None,
        "zero_stage": getattr(trainer.accelerator.state.deepspeed_plugin, "zero_stage", None),
        "wrapper": type(trainer.model_wrapped).__name__,
        "held": sum(getattr(p, "_local_tensor", p).numel() for p in trainer.model.parameters()),
    }


def run_with_prm(algorithm: str, folder: Path, prm: Path, placement: str) -> dict:
    """The same with a real PRM, one rollout per forward: the ranks have different numbers of forwards to make."""
    scorer = load_prm(prm, placement=placement, max_batch_tokens=1)
    score, made, own = scorer.score, [], []

    def counted(problems, steps):
        before = scorer.stats.forwards
        scores = score(problems, steps)
        made.append(scorer.stats.forwards - before)
        own.append(len({(problem, *row) for problem, row in zip(problems, steps, strict=True)}))
        return scores

    scorer.score = counted
    result = run(algorithm, folder / f"{algorithm}-prm", scorer)
    sharded = all(hasattr(parameter, "ds_id") for parameter in scorer.placement.reader.parameters())
    return result | {"prm_sharded": sharded, "own_forwards": sum(own), "forwards": sum(made)}


def run_with_live_values(algorithm: str, folder: Path) -> dict:
    """The same on live values, two completions per call of ``generate``: the ranks have different numbers to make.

    Only the most probable token is ever sampled, so that one rank and many see the same completions.
    """
    scorer = LiveMonteCarloScorer(2, batch_size=2)
    result = run(algorithm, folder / f"{algorithm}-live", scorer, method="vine", top_k=1)
    stats = scorer.stats
    return result | {"prefixes": stats.prefixes, "completions": stats.completions, "tokens": stats.tokens}


class TokenHashScorer:
    """A token's score depends on the prompt and the tokens up to it."""

    def score_tokens(self, rollouts):
        return [
            torch.tensor(
                [
                    zlib.crc32(f"{one.prompt_ids}|{one.completion_ids[: t + 1]}".encode()) % 1000 / 500 - 1
                    for t in range(len(one.completion_ids))
                ]
            )
            for one in rollouts
        ]


def run_with_token_scores(algorithm: str, folder: Path) -> dict:
    """The same with scores of tokens, compared within a group that spans the ranks."""
    how = {"method": "spro", "method_kwargs": {"beta": 0.2}} if algorithm == "grpo" else {"shaping": "token_scores"}
    return run(algorithm, folder / f"{algorithm}-tokens", TokenHashScorer(), **how)


def run_with_implicit_prm(folder: Path, models: Path | None) -> dict:
    """The same on an implicit PRM that is trained along.

    Args:
        models: a folder of the model that learns and its reference; None = an adapter beside that of a PEFT policy.
    """
    settings = ImplicitSettings(beta=0.5, learning_rate=1e-2)
    if models is None:
        of_prm = AdapterModel(None, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
        of_policy = LoraConfig(r=2, target_modules=["k_proj"], task_type="CAUSAL_LM")
        return run("grpo", folder / "grpo-beside", ImplicitPRM(of_prm, settings), method="prime", adapter=of_policy)
    two = TwoModels(*(load_token_model(one) for one in models_in(models)))
    return run("grpo", folder / "grpo-implicit", ImplicitPRM(two, settings), method="prime")


def with_tools(prompts: list[str], trainer) -> dict:
    """The scripted completions, in which a tool wrote some of the tokens; the two ranks have different numbers."""
    output = scripted(prompts, trainer)
    masks = []
    for ids in output["completion_ids"]:
        draw = random.Random(zlib.crc32(str(ids).encode()))
        first = draw.randint(1, len(ids))
        length = draw.randint(0, len(ids) - first)
        masks.append([1] * first + [0] * length + [1] * (len(ids) - first - length))
    turns = [sum(own for own, _ in itertools.groupby(mask)) for mask in masks]
    keys = [
        [f"state {len(mask) % 2 + turn}" for turn in range(count)] for mask, count in zip(masks, turns, strict=True)
    ]
    return output | {"env_mask": masks, "state_keys": keys}


def run_with_tools(algorithm: str, folder: Path) -> dict:
    """The same with tokens that a tool wrote."""
    return run(algorithm, folder / f"{algorithm}-turns", rollouts=with_tools)


def run_with_calls(algorithm: str, folder: Path) -> dict:
    """The same with TRL's own tools and generation; the rollouts of the ranks have different numbers of turns.

    Every turn is sampled, and then replaced by one that depends on the conversation alone.
    """
    theirs, made = GRPOTrainer._generate_single_turn, []

    def scripted_turn(self, prompt_ids, *args, **kwargs):
        config = self.generation_config
        made.append([len(prompt_ids), config.max_new_tokens])
        config.max_new_tokens = min(config.max_new_tokens, 4)
        _, logprobs = theirs(self, prompt_ids, *args, **kwargs)
        config.max_new_tokens = made[-1][1]
        texts = [self.processing_class.decode(ids) for ids in prompt_ids]
        return [self.processing_class(adds_up(text) + "<eos>")["input_ids"] for text in texts], logprobs

    GRPOTrainer._generate_single_turn = scripted_turn
    try:
        groups = {"num_generations": ROLLOUTS // 2} if algorithm == "grpo" else {}  # one on each of two ranks
        result = run(algorithm, folder / f"{algorithm}-tools", **TOOLS, **groups)
    finally:
        GRPOTrainer._generate_single_turn = theirs
    return result | {"turns": made}


def add(a: int, b: int) -> int:
    """Adds two numbers.

    Args:
        a: one.
        b: the other.
    """
    return a + b


def adds_up(conversation: str) -> str:
    """Every prompt has its number of turns: that of letters in it, and its answer ends them."""
    turns = conversation.count("<t>")
    wanted = conversation.partition("</u>")[0].count("z")
    return f"so\n\n{call('add', a=turns, b=1)}" if turns < wanted else f"done\n\nit is {turns}"


TOOLS: dict[str, Any] = {
    "rollouts": None,
    "policy": tool_policy,
    "tokenizer": tool_tokenizer,
    "tools": [add],
    "dataset": Dataset.from_dict(
        {"prompt": [[{"role": "user", "content": "z" * (i % 4)}] for i in range(8)], "solution": ["3"] * 8}
    ),
    "max_completion_length": 300,
}


def results_of(folder: Path, parts: list[str]) -> dict:
    """What each part gave on this rank."""
    results = {}
    for part in parts:
        algorithm, _, what = part.partition("-")
        if what == "sampled":
            trainer = trainer_of(algorithm, folder / part, rollouts=None, max_steps=2, save_strategy="no")
            trainer.train()
            results[part] = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        elif what == "prm":
            results[part] = run_with_prm(algorithm, folder, Path(os.environ["TEST_PRM"]), placement="zero3")
        elif what == "tokens":
            results[part] = run_with_token_scores(algorithm, folder)
        elif what == "implicit":
            results[part] = run_with_implicit_prm(folder, Path(os.environ["TEST_IMPLICIT"]))
        elif what == "beside":
            results[part] = run_with_implicit_prm(folder, None)
        elif what == "tools":
            results[part] = run_with_calls(algorithm, folder)
        elif what == "turns":
            results[part] = run_with_tools(algorithm, folder)
        elif what == "live":
            results[part] = run_with_live_values(algorithm, folder)
        else:
            results[part] = run(algorithm, folder / algorithm, resume=what == "resume")
    return results
