"""Loads the pairs of a reward model's training: from files of pairs, or from samples with right and wrong answers."""

from dataclasses import dataclass, field

from reward import resolve
from reward.verifier import MathVerifier
from rlhf_prm.command_line import separator as as_separator
from rlhf_prm.evaluation.samples import read_sample_rows, verified_samples
from rlhf_prm.prm_training.pairs import Pair, pairs_from_samples, read_pairs
from rlhf_prm.steps import StepSplitter


@dataclass
class PairRecipeArguments:
    """The data of ``recipes/train_pairs.py``, beside ``PairConfig`` and TRL's ``ModelConfig``.

    Raises:
        ValueError: a value outside its range.
    """

    train_data: list[str] = field(
        default_factory=list, metadata={"help": "Files of pairs: prompt, chosen, rejected (texts, or lists of steps)."}
    )
    train_samples: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Files of samples (problem, completions, solution): right against wrong answers of a problem."
        },
    )
    eval_data: list[str] = field(default_factory=list, metadata={"help": "Held-out pairs."})
    eval_fraction: float = field(default=0.1, metadata={"help": "Without eval_data: this share of the problems."})
    pairs_per_problem: int = field(default=4, metadata={"help": "Most pairs that the samples of a problem give."})
    separator: str = field(default="\\n\\n", metadata={"help": "What ends a step in a text."})
    verifier: str = field(default="math", metadata={"help": "math, or the dotted path of a class that gives verdicts."})

    def __post_init__(self) -> None:
        if not 0.0 <= self.eval_fraction < 1.0:
            raise ValueError(f"eval_fraction: got {self.eval_fraction}, expected a share from 0 to below 1")
        if self.pairs_per_problem < 1:
            raise ValueError(f"pairs_per_problem: got {self.pairs_per_problem}, expected at least 1")
        if not self.train_data and not self.train_samples:
            raise ValueError("expected --train_data FILE of pairs, or --train_samples FILE of samples")


def load_pairs(recipe: PairRecipeArguments, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Pairs to train on, and held-out ones of other problems.

    Raises:
        ValueError: a file that cannot be read, or no problem with a right and a wrong answer.
    """
    splitter = StepSplitter(as_separator(recipe.separator))
    pairs = [pair for path in recipe.train_data for pair in read_pairs(path, splitter)]
    if recipe.train_samples:
        verifier = resolve(recipe.verifier, {"math": MathVerifier}, "verifier")()
        for path in recipe.train_samples:
            samples = verified_samples(read_sample_rows(path), verifier, splitter)
            pairs += pairs_from_samples(samples, recipe.pairs_per_problem, seed)
    if not pairs:
        raise ValueError("the samples have no problem with both a right and a wrong answer: no pairs to train on")
    if recipe.eval_data:
        return pairs, [pair for path in recipe.eval_data for pair in read_pairs(path, splitter)]
    problems = list(dict.fromkeys(pair.prompt for pair in pairs))
    held = set(problems[len(problems) - round(recipe.eval_fraction * len(problems)) :]) if len(problems) > 1 else set()
    return [pair for pair in pairs if pair.prompt not in held], [pair for pair in pairs if pair.prompt in held]
