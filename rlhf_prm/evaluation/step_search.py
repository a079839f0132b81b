"""Step-wise search: decode one step at a time and let the PRM accept it (HGS-PRM, arXiv 2310.10080), at equal tokens
with best-of-n.

A step that the PRM scores above the threshold is accepted. Otherwise another one is sampled in its place, a few times;
then the search removes the last accepted step and continues from there. It ends when an accepted step is final, or
when the token budget is used up. Best-of-n gets, for each problem, the tokens that the search has used, discarded
steps included: whole samples are drawn as long as one more of mean length comes closer to that number.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from reward.verifier import Verifier
from rlhf_prm.evaluation.aggregation import solution_score
from rlhf_prm.generation import Generator
from rlhf_prm.generation.prefixes import step_ids
from rlhf_prm.generation.prompts import prompt_ids as ids_of_prompt
from rlhf_prm.generation.requests import Prompt
from rlhf_prm.prm.protocol import StepScorer
from rlhf_prm.progress import Bar
from rlhf_prm.statistics import WRONG_AT_OR_BELOW
from rlhf_prm.steps import StepSplitter

CountTokens = Callable[[str], int]
FINAL_ANSWER = r"\\boxed\s*\{|(?m:^\s*####\s*[-+−$]?\s*[.\d])"


@dataclass(frozen=True)
class SearchSettings:
    """Settings of the search.

    Args:
        token_budget: generated tokens per problem, discarded ones included; a step in progress may exceed it.
        threshold: a step is accepted when its score is above.
        tries: samples of one step before the previous step is removed.
        max_steps: longest solution.
        separator: ends a step.
        final_pattern: a regular expression that a step matches somewhere if it ends the solution; by default a box, or
            GSM8K's ``####`` with a number.
        aggregation: the aggregation by which best-of-n chooses.
    """

    token_budget: int = 2048
    threshold: float = WRONG_AT_OR_BELOW
    tries: int = 3
    max_steps: int = 40
    separator: str = "\n\n"
    final_pattern: str = FINAL_ANSWER
    aggregation: str = "product"

    def __post_init__(self) -> None:
        for name in ("token_budget", "tries", "max_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected at least 1")
        try:
            re.compile(self.final_pattern)
        except re.error as error:
            raise ValueError(f"final_pattern {self.final_pattern!r} is not a regular expression: {error}") from error

    def is_final(self, step: str) -> bool:
        """Whether this step ends the solution."""
        return re.search(self.final_pattern, step) is not None


@dataclass
class Search:
    """The state of one problem's search; ``best`` is the finished solution, or the furthest it got if the budget ends
    before it does. ``step_ids`` are the tokens of ``steps``, separators included, if the policy continues token ids.
    """

    problem: str
    prompt: str
    steps: list[str] = field(default_factory=list)
    misses: int = 0
    tokens: int = 0
    resampled: int = 0
    taken_back: int = 0
    finished: bool = False
    best: list[str] = field(default_factory=list)
    prompt_ids: list[int] | None = None
    step_ids: list[list[int]] = field(default_factory=list)

    def open(self, settings: SearchSettings) -> bool:
        return not self.finished and self.tokens < settings.token_budget

    def request(self, separator: str) -> Prompt:
        """The text to continue: the prompt and the accepted steps."""
        if self.prompt_ids is not None:
            return [*self.prompt_ids, *chain.from_iterable(self.step_ids)]
        return self.prompt + "".join(step + separator for step in self.steps)

    def advance(self, step: str, tokens: int, score: float, settings: SearchSettings, ids: Sequence[int] = ()) -> None:
        """Accept a sampled step by its score, or count a miss and remove a step after too many."""
        self.tokens += tokens
        if step and score > settings.threshold:
            self.steps.append(step)
            self.step_ids.append(list(ids))
            self.misses = 0
            self.finished = settings.is_final(step) or len(self.steps) >= settings.max_steps
            if self.finished or len(self.steps) >= len(self.best):
                self.best = list(self.steps)
            return
        self.misses += 1
        self.resampled += 1
        if self.misses >= settings.tries and self.steps:
            self.steps.pop()
            self.step_ids.pop()
            self.taken_back += 1
            self.misses = 0


def step_search(
    generator: Generator,
    scorer: StepScorer,
    problems: Sequence[str],
    count_tokens: CountTokens,
    settings: SearchSettings,
    *,
    prompts: Sequence[str] | None = None,
    seed: int = 0,
    tokenizer: Any = None,
) -> list[Search]:
    """Search all problems side by side, one step of each at a time.

    Args:
        prompts: the text whose continuation is a solution; the problem's own text by default.
        count_tokens: tokens of a piece of text, for the budget.
        tokenizer: the policy's. With it a generator that has ``reads_ids`` goes on from the tokens that it sampled;
            default: the generator's own ``tokenizer``.
    """
    tokenizer = tokenizer or getattr(generator, "tokenizer", None)
    searches = [Search(p, prompt) for p, prompt in zip(problems, prompts or problems, strict=True)]
    if by_ids := tokenizer is not None and getattr(generator, "reads_ids", False):
        for search in searches:
            search.prompt_ids = ids_of_prompt(tokenizer, search.prompt)
    turn = 0
    bar = Bar(len(searches), "search", "problem")
    while indices := [index for index, search in enumerate(searches) if search.open(settings)]:
        going = [searches[index] for index in indices]
        asked = [search.request(settings.separator) for search in going]
        seeds = [_seed(seed, index, turn) for index in indices]
        drawn = [texts[0] for texts in generator.generate(asked, 1, seed=seeds, stop=[settings.separator])]
        candidates = [step.strip() for step in drawn]
        scores = scorer.score(
            [search.problem for search in going],
            [[*search.steps, step or " "] for search, step in zip(going, candidates, strict=True)],
        )
        for search, text, step, row in zip(going, drawn, candidates, scores, strict=True):
            ids = step_ids(tokenizer, step, text, settings.separator) if by_ids else ()
            search.advance(step, max(1, count_tokens(step + settings.separator)), row[-1], settings, ids)
        bar.add(sum(not search.open(settings) for search in going))
        turn += 1
    bar.close()
    return searches


def _seed(seed: int, problem: int, turn: int) -> int:
    return (seed * 1_000_003 + problem * 10_007 + turn) % (2**31 - 1)


def best_of_budget(
    generator: Generator,
    scorer: StepScorer,
    problems: Sequence[str],
    count_tokens: CountTokens,
    settings: SearchSettings,
    *,
    budgets: Sequence[int] | None = None,
    prompts: Sequence[str] | None = None,
    seed: int = 0,
) -> tuple[list[str], list[int]]:
    """For each problem, the best-scored of as many whole samples as its token budget allows, and the tokens used.

    One sample is always drawn, and a further one while half of a sample of mean length is still left: the tokens used
    are as often below the budget as above it.

    Args:
        budgets: tokens of each problem; the settings' budget for all by default.
    """
    splitter = StepSplitter(settings.separator)
    budgets = [settings.token_budget] * len(problems) if budgets is None else list(budgets)
    samples: list[list[str]] = [[] for _ in problems]
    used = [0] * len(problems)
    turn = 0
    bar = Bar(len(problems), "best of n", "problem")
    while going := [index for index in range(len(problems)) if _pays(used[index], len(samples[index]), budgets[index])]:
        seeds = [_seed(seed, index, turn) for index in going]
        drawn = generator.generate([(prompts or problems)[index] for index in going], 1, seed=seeds, stop=None)
        for index, texts in zip(going, drawn, strict=True):
            samples[index].append(texts[0])
            used[index] += max(1, count_tokens(texts[0]))
        bar.add(sum(not _pays(used[index], len(samples[index]), budgets[index]) for index in going))
        turn += 1
    bar.close()
    flat = [(index, text) for index, texts in enumerate(samples) for text in texts]
    rows = scorer.score([problems[index] for index, _ in flat], [splitter.split(text) for _, text in flat])
    chosen: list[tuple[float, str]] = [(-float("inf"), texts[0]) for texts in samples]
    for (index, text), row in zip(flat, rows, strict=True):
        score = solution_score(row, settings.aggregation)
        if score > chosen[index][0]:
            chosen[index] = (score, text)
    return [text for _, text in chosen], used


def _pays(used: int, samples: int, budget: int) -> bool:
    """Whether one more sample brings the tokens used nearer to the budget."""
    return samples == 0 or budget - used >= used / samples / 2


def compare_search(
    generator: Generator,
    scorer: StepScorer,
    verifier: Verifier,
    problems: Sequence[str],
    solutions: Sequence[str],
    count_tokens: CountTokens,
    settings: SearchSettings | None = None,
    *,
    prompts: Sequence[str] | None = None,
    seed: int = 0,
    tokenizer: Any = None,
) -> dict[str, dict[str, float]]:
    """Accuracy and mean tokens of step-wise search, and of best-of-n with the tokens that the search used."""
    settings = settings or SearchSettings()
    common: dict[str, Any] = {"prompts": prompts, "seed": seed}
    searches = step_search(generator, scorer, problems, count_tokens, settings, tokenizer=tokenizer, **common)
    budgets = [search.tokens for search in searches]
    texts, used = best_of_budget(generator, scorer, problems, count_tokens, settings, budgets=budgets, **common)
    found = [settings.separator.join(search.best) for search in searches]
    size = len(problems)
    return {
        "step_search": {
            "accuracy": accuracy(verifier, found, solutions),
            "tokens": sum(search.tokens for search in searches) / size,
            "finished": sum(search.finished for search in searches) / size,
            "resampled": sum(search.resampled for search in searches) / size,
            "taken_back": sum(search.taken_back for search in searches) / size,
        },
        "best_of_n": {"accuracy": accuracy(verifier, texts, solutions), "tokens": sum(used) / size},
    }


def accuracy(verifier: Verifier, completions: Sequence[str], solutions: Sequence[str]) -> float:
    """Share of right completions among those whose gold answer can be read."""
    rewards = [verdict.reward for verdict in verifier.verify(list(completions), list(solutions))]
    readable = [reward for reward in rewards if reward is not None]
    return sum(readable) / len(readable) if readable else float("nan")
