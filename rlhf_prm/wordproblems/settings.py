"""The settings of a word-problem world: everything that decides what is built, and three sizes of it."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from rlhf_prm.wordproblems.base_model import WHEEL

LABEL_SOURCES = ("judge", "mc", "consensus", "gold")  # who labels the PRM's solutions

# What ``python recipes/real_lm.py --scale`` knows: settings over the defaults.
SCALES: dict[str, dict[str, Any]] = {
    "full": {},
    "small": {
        **{"sft_updates": 80, "labelled_solutions": 240, "mc_completions": 3, "eval_problems": 200},
        **{"prm_updates": 30, "prm_eval_every": 15},
    },
    "smoke": {
        **{"sft_updates": 2, "sft_batch": 2, "labelled_solutions": 8, "mc_completions": 1, "eval_problems": 8},
        **{"train_problems": 32, "prm_updates": 2, "prm_batch": 4, "prm_eval_every": 2, "judge_votes": 1},
        **{"prm_held_out": 0.5, "max_completion_length": 40},
    },
}


@dataclass(frozen=True)
class WordWorldSettings:
    """What to build. Equal settings give equal worlds, as far as the CPU's arithmetic is the same.

    Args:
        seed: decides the problems, the order of training, the samples and the judge. Held-out wordings are the same for
            every seed.
        model: ``smollm2`` (the wheel's), a folder, or the Hub name of an instruction-tuned decoder.
        label_source: what labels the PRM's solutions: ``judge`` (fallible), ``mc`` (Monte-Carlo), their ``consensus``,
            or ``gold`` (the exact checker).
        train_problems, eval_problems: prompts for reinforcement learning, and held-out ones.
        sft_updates, sft_batch, sft_learning_rate: supervised fine-tuning of the policy on right solutions.
        frozen_layers: embeddings and so many of the lowest layers are kept as they are when the PRM and the policy are
            trained (not in supervised fine-tuning): half the time of an update.
        labelled_solutions: solutions sampled from the policy and labelled, one per problem.
        mc_completions: Monte-Carlo completions from every step prefix.
        judge_flips: share of the judge's verdicts that are wrong, half of them at random, half systematically.
        judge_votes: answers of the judge about every solution; the first error with most votes is taken.
        prm_updates, prm_batch, prm_learning_rate: training of the PRM; the updates are the most it gets.
        prm_held_out, prm_eval_every, prm_patience: as in the toy world.
        max_completion_length: tokens that a completion may have.
    """

    seed: int = 0
    model: str = WHEEL
    label_source: str = "judge"
    train_problems: int = 1024
    eval_problems: int = 400
    sft_updates: int = 160
    sft_batch: int = 8
    sft_learning_rate: float = 3e-4
    frozen_layers: int = 15
    labelled_solutions: int = 800
    mc_completions: int = 4
    judge_flips: float = 0.1
    judge_votes: int = 8
    prm_updates: int = 60
    prm_batch: int = 16
    prm_learning_rate: float = 1e-4
    prm_held_out: float = 0.1
    prm_eval_every: int = 20
    prm_patience: int = 3
    max_completion_length: int = 80

    def __post_init__(self) -> None:
        if self.label_source not in LABEL_SOURCES:
            raise ValueError(f"label_source: got {self.label_source!r}, expected one of {', '.join(LABEL_SOURCES)}")
        if not 0.0 <= self.judge_flips <= 1.0:
            raise ValueError(f"judge_flips: got {self.judge_flips}, expected a share between 0 and 1")
        if not 0.0 < self.prm_held_out < 1.0:
            raise ValueError(f"prm_held_out: got {self.prm_held_out}, expected a share above 0 and below 1")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type in ("int", int) and field.name not in ("seed", "frozen_layers") and value < 1:
                raise ValueError(f"{field.name}: got {value}, expected at least 1")
        if self.frozen_layers < 0:
            raise ValueError(f"frozen_layers: got {self.frozen_layers}, expected 0 (none) or more")

    def subset(self, *names: str) -> dict[str, Any]:
        """The named settings as a dict: what a cached stage depends on."""
        values = asdict(self)
        return {name: values[name] for name in names}
