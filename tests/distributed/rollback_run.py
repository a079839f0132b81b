"""Keeps weights in the middle of a run, trains on, puts them back, trains on; each rank says what it saw."""

import hashlib
import itertools
import os
from contextlib import nullcontext
from pathlib import Path

import torch
from datasets import Dataset
from transformers import TrainerCallback

from rlhf_prm.guard.detectors import TripRule
from rlhf_prm.guard.guard import HackGuard
from rlhf_prm.guard.last_good import LastGood
from rlhf_prm.prm import load_prm
from tests.distributed.scripted_run import completion, trainer_of

WASTED = 2  # updates between keeping and putting back
LAST = 6
Weights = dict[str, torch.Tensor]


def weights_of(trainer) -> Weights:
    """A copy of every parameter, whole on every rank."""
    parameters = dict(trainer.accelerator.unwrap_model(trainer.model).named_parameters())
    whole = nullcontext()
    if any(hasattr(parameter, "ds_id") for parameter in parameters.values()):
        import deepspeed

        whole = deepspeed.zero.GatheredParameters(list(parameters.values()))
    with whole:
        return {name: parameter.detach().clone() for name, parameter in parameters.items()}


def distance(one: Weights, other: Weights) -> float:
    """The largest difference of any weight."""
    return max((one[name] - other[name]).abs().max().item() for name in one)


def digest(weights: Weights) -> str:
    """Equal on two ranks when every bit is."""
    return hashlib.sha256(b"".join(weight.numpy().tobytes() for weight in weights.values())).hexdigest()


class Rollback(TrainerCallback):
    """Keeps the weights of update ``good`` and puts them back ``WASTED`` updates later.

    With one prompt for all rollouts, the update after the rollback gets the batch that the one after keeping got.
    """

    def __init__(self, folder: Path, good: int) -> None:
        self.folder, self.good, self.trainer = folder, good, None
        self.weights: dict[int, Weights] = {}
        self.rates: list[float] = []  # of update 0, 1, …
        self.generated: list[int] = []  # the updates that sampled

    def rollouts(self, prompts: list[str], trainer) -> dict:
        """Scripted; after the rollback the script goes on from where the weights were kept."""
        update = trainer.state.global_step
        self.generated.append(update)
        update -= WASTED if update >= self.good + WASTED else 0
        first = trainer.accelerator.process_index * len(prompts)
        return {
            "prompt_ids": [trainer.processing_class(prompt)["input_ids"] for prompt in prompts],
            "completion_ids": [completion(p, first + i, update) for i, p in enumerate(prompts)],
            "logprobs": None,
        }

    def on_train_begin(self, args, state, control, **kwargs):
        self.last_good = LastGood(self.trainer, self.folder / "kept")
        self.wrapper = type(self.trainer.model_wrapped).__name__
        self.on_step_end(args, state, control)

    def on_step_begin(self, args, state, control, **kwargs):
        self.rates.append(self.trainer.optimizer.param_groups[0]["lr"])

    def on_step_end(self, args, state, control, **kwargs):
        self.weights[state.global_step] = weights_of(self.trainer)
        if state.global_step == self.good:
            self.last_good.save(state.global_step)
        if state.global_step == self.good + WASTED:
            self.last_good.restore()
            self.restored = weights_of(self.trainer)

    def result(self) -> dict:
        """What the test judges."""
        good, back = self.weights[self.good], self.good + WASTED
        critic = {name: weight for name, weight in good.items() if name.startswith("critic.")}
        return {
            "world_size": self.trainer.accelerator.num_processes,
            "wrapper": self.wrapper,
            "thrown_away": distance(good, self.weights[back]),
            "critic_thrown_away": distance(critic, self.weights[back]) if critic else None,
            "restored": distance(good, self.restored),
            "update": distance(self.restored, self.weights[back + 1]),
            "update_again": distance(self._update_again(), self.weights[back + 1]),
            "went_on": distance(self.weights[LAST - 1], self.weights[LAST]),
            "digests": [digest(self.restored), digest(self.weights[LAST])],
            "rates": self.rates,
            "generated": self.generated,
            "memory": {name: value.tolist() for name, value in self.trainer.step_advantages.memory.items()},
        }

    def _update_again(self) -> Weights:
        """What the update after the rollback must give.

        Adam's step is proportional to the learning rate: from the same weights, moments and batch it is the one that
        was made after keeping, but for the schedule that has gone on in between.
        """
        good, then = self.weights[self.good], self.weights[self.good + 1]
        slower = self.rates[self.good + WASTED] / self.rates[self.good]
        return {name: good[name] + slower * (then[name] - good[name]) for name in good}


def roll_back(algorithm: str, folder: Path, good: int, scorer=None) -> dict:
    """One run with a rollback in it. ``algorithm``: "grpo", "ppo", "lora", "memory" or "reuse" for such a GRPO."""
    callback, adapter = Rollback(folder, good), None
    one_prompt = Dataset.from_dict({"prompt": [" 1 + 2 ="] * 64, "solution": ["3"] * 64})
    settings = dict(max_steps=LAST, save_strategy="no", lr_scheduler_type="linear")
    if algorithm == "lora":
        from peft import LoraConfig

        algorithm, adapter = "grpo", LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    if algorithm == "memory":
        algorithm, settings["method"] = "grpo", "tests.rl.counting_method.counting"
    if algorithm == "reuse":
        algorithm, settings["num_iterations"] = "grpo", 4
    trainer = trainer_of(algorithm, folder, scorer, callback.rollouts, one_prompt, adapter, **settings)
    callback.trainer = trainer
    trainer.add_callback(callback)
    trainer.train()
    return callback.result()


class Look(TrainerCallback):
    """The digest of the weights after every update, once the callbacks before it have acted."""

    def __init__(self) -> None:
        self.trainer, self.digests = None, []

    def on_step_end(self, args, state, control, **kwargs):
        self.digests.append(digest(weights_of(self.trainer)))


def guarded(folder: Path, rank: int) -> dict:
    """HackGuard rolls back at its first look, update 4. Only the first rank is told that accuracy has fallen."""
    told = itertools.chain([0.9, 0.1] if rank == 0 else [0.9], itertools.repeat(0.95))
    guard = HackGuard(
        action="rollback",
        held_out=told.__next__,
        every=1,
        rules={"incorrect_score": TripRule("up", -1.0)},
        watch={"reference": 3, "window": 1, "noise": -100.0},
        make_up=True,
    )
    settings = dict(max_steps=LAST, save_strategy="no", lr_scheduler_type="linear")
    trainer, look = trainer_of("grpo", folder, **settings), Look()
    guard.trainer = look.trainer = trainer
    trainer.add_callback(guard)
    trainer.add_callback(look)
    begun = digest(weights_of(trainer))
    trainer.train()
    return {
        "begun": begun,
        "digests": look.digests,
        "scales": [row["hack/process_scale"] for row in trainer.state.log_history if "hack/process_scale" in row],
        "updates": trainer.state.global_step,
        "actions": [(entry["step"], entry["action"]) for entry in guard.journal.entries()],  # the main process's
    }


def deepspeed_is_on() -> bool:
    return os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true"


def results_of(folder: Path, parts: list[str]) -> dict:
    """What each part gave on this rank."""
    rank, results = int(os.environ.get("RANK", "0")), {}
    for part in parts:
        algorithm, _, good = part.partition("-")
        if algorithm == "guard":
            results[part] = guarded(folder / part, rank)
        else:
            sharded = deepspeed_is_on() and algorithm == "grpo"
            scorer = load_prm(os.environ["TEST_PRM"], placement="zero3", max_batch_tokens=64) if sharded else None
            results[part] = roll_back(algorithm, folder / part, int(good), scorer)
            parameters = scorer.placement.reader.parameters() if scorer else []
            results[part]["prm_sharded"] = bool(scorer) and all(hasattr(p, "ds_id") for p in parameters)
    return results
