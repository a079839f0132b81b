"""Searches that a PRM guides step by step: greedy search@n, beam search, and DVTS, at equal tokens with best-of-n.

All three draw n candidate steps at each depth and keep the best-scored; they differ in what competes with what::

    greedy  1 tree,       1 beam kept,     n candidates of it    (Appendix A of arXiv 2501.07301)
    beam    1 tree,       n/m beams kept,  m candidates of each
    dvts    n/m trees,    1 beam kept,     m candidates of it    (independent trees keep the answers diverse)

A candidate is ranked by the score of its newest step, as the paper does. Where several beams are left at the end, the
one with the best aggregated score answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from reward.verifier import Verifier
from rlhf_prm.evaluation.aggregation import solution_score
from rlhf_prm.evaluation.step_search import CountTokens, SearchSettings, accuracy, best_of_budget
from rlhf_prm.generation import Generator
from rlhf_prm.generation.prefixes import step_ids
from rlhf_prm.generation.prompts import prompt_ids as ids_of_prompt
from rlhf_prm.generation.requests import Prompt, unit_seed
from rlhf_prm.prm.protocol import StepScorer
from rlhf_prm.progress import Bar


@dataclass(frozen=True)
class Shape:
    """How many trees there are, beams kept in each, and candidates drawn from each beam."""

    trees: int
    kept: int
    candidates: int


METHODS = ("greedy", "beam", "dvts")


def shape_of(method: str, n: int, candidates: int) -> Shape:
    """The shape of a method with ``n`` candidates at each depth.

    Raises:
        ValueError: an unknown method, or ``candidates`` does not divide ``n`` (greedy search has one beam, and n
            candidates of it).
    """
    if method not in METHODS:
        raise ValueError(f"search {method!r}: expected one of {', '.join(METHODS)}")
    if n < 1:
        raise ValueError(f"search {method}: got n={n}, expected at least 1")
    if method == "greedy":
        return Shape(1, 1, n)
    if candidates < 1 or n % candidates:
        raise ValueError(
            f"search {method}: got n={n} and {candidates} candidates of each beam, expected n to be a multiple of them"
        )
    return Shape(1, n // candidates, candidates) if method == "beam" else Shape(n // candidates, 1, candidates)


@dataclass(frozen=True)
class Beam:
    """A partial solution; ``step_ids`` are the tokens of ``steps`` if the policy continues token ids."""

    steps: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    step_ids: tuple[tuple[int, ...], ...] = ()
    finished: bool = False


@dataclass
class Tree:
    """Beams that compete with each other for one problem."""

    problem: int
    number: int
    beams: list[Beam] = field(default_factory=lambda: [Beam()])

    @property
    def open(self) -> bool:
        return any(not beam.finished for beam in self.beams)


@dataclass
class Found:
    """The result of one problem's search."""

    steps: list[str]
    finished: bool
    tokens: int


@dataclass
class _Problem:
    text: str
    prompt: str
    prompt_ids: list[int] | None
    tokens: int = 0

    def request(self, beam: Beam, separator: str) -> Prompt:
        if self.prompt_ids is not None:
            return [*self.prompt_ids, *chain.from_iterable(beam.step_ids)]
        return self.prompt + "".join(step + separator for step in beam.steps)


def guided_search(
    generator: Generator,
    scorer: StepScorer,
    problems: Sequence[str],
    count_tokens: CountTokens,
    settings: SearchSettings,
    shape: Shape,
    *,
    prompts: Sequence[str] | None = None,
    seed: int = 0,
    tokenizer: Any = None,
) -> list[Found]:
    """Search all problems side by side, one depth at a time; the arguments are those of ``step_search``.

    ``settings.token_budget`` counts every candidate; a depth in progress may go over it. ``settings.threshold`` and
    ``settings.tries`` do not apply: the best candidate is kept, whatever its score.
    """
    tokenizer = tokenizer or getattr(generator, "tokenizer", None)
    by_ids = tokenizer is not None and getattr(generator, "reads_ids", False)
    states = [
        _Problem(text, prompt, ids_of_prompt(tokenizer, prompt) if by_ids else None)
        for text, prompt in zip(problems, prompts or problems, strict=True)
    ]
    trees = [Tree(problem, number) for problem in range(len(states)) for number in range(shape.trees)]
    depth = 0
    with Bar(len(trees), "search", "tree") as bar:
        while going := [tree for tree in trees if tree.open and states[tree.problem].tokens < settings.token_budget]:
            # the first step of a tree has as many candidates as all its beams together later
            draws = shape.candidates * (shape.kept if depth == 0 else 1)
            pairs = [(tree, beam) for tree in going for beam in tree.beams if not beam.finished]
            asked = [states[tree.problem].request(beam, settings.separator) for tree, beam in pairs]
            seeds = [
                unit_seed(seed, "guided", tree.problem, tree.number, depth, i) for i, (tree, _) in enumerate(pairs)
            ]
            drawn = generator.generate(asked, draws, seed=seeds, stop=[settings.separator])
            _grow(going, pairs, drawn, states, scorer, count_tokens, settings, shape, tokenizer if by_ids else None)
            depth += 1
            bar.add(sum(not tree.open for tree in going))
    return [_best(states[i], [t for t in trees if t.problem == i], settings) for i in range(len(states))]


def _grow(
    going: list[Tree],
    pairs: list[tuple[Tree, Beam]],
    drawn: list[list[str]],
    states: list[_Problem],
    scorer: StepScorer,
    count_tokens: CountTokens,
    settings: SearchSettings,
    shape: Shape,
    tokenizer: Any,
) -> None:
    """Each tree's beams become the best of their candidates and of those already finished."""
    candidates: list[tuple[Tree, Beam]] = []
    for (tree, beam), texts in zip(pairs, drawn, strict=True):
        for text in texts:
            step = text.strip()
            states[tree.problem].tokens += max(1, count_tokens(step + settings.separator))
            ids = () if tokenizer is None else tuple(step_ids(tokenizer, step, text, settings.separator))
            steps = (*beam.steps, step or " ")
            done = settings.is_final(step) or len(steps) >= settings.max_steps
            candidates.append((tree, replace(beam, steps=steps, step_ids=(*beam.step_ids, ids), finished=done)))
    problems = [states[tree.problem].text for tree, _ in candidates]
    scores = scorer.score(problems, [list(beam.steps) for _, beam in candidates])
    grown: dict[int, list[Beam]] = {id(tree): [beam for beam in tree.beams if beam.finished] for tree in going}
    for (tree, beam), row in zip(candidates, scores, strict=True):
        grown[id(tree)].append(replace(beam, scores=tuple(row)))
    for tree in going:
        different = {beam.steps: beam for beam in reversed(grown[id(tree)])}  # equal texts would fill the tree
        ranked = sorted(
            reversed(different.values()), key=lambda beam: solution_score(beam.scores, "last"), reverse=True
        )
        tree.beams = ranked[: shape.kept]


def _best(state: _Problem, trees: list[Tree], settings: SearchSettings) -> Found:
    """A finished beam before one that is not, then the better aggregated score."""
    beams = [beam for tree in trees for beam in tree.beams if beam.steps]
    if not beams:
        return Found([], False, state.tokens)
    best = max(beams, key=lambda beam: (beam.finished, solution_score(beam.scores, settings.aggregation)))
    return Found(list(best.steps), best.finished, state.tokens)


def compare_guided(
    generator: Generator,
    scorer: StepScorer,
    verifier: Verifier,
    problems: Sequence[str],
    solutions: Sequence[str],
    count_tokens: CountTokens,
    settings: SearchSettings,
    methods: Sequence[str] = METHODS,
    *,
    n: int = 8,
    candidates: int = 4,
    prompts: Sequence[str] | None = None,
    seed: int = 0,
    tokenizer: Any = None,
) -> dict[str, dict[str, float]]:
    """Accuracy and mean tokens of each search, and of best-of-n with the tokens it used on each problem.

    Args:
        n: candidates at each depth, for every method.
        candidates: of each beam, for ``beam`` and ``dvts``.
    """
    shapes = {method: shape_of(method, n, candidates) for method in methods}
    common: dict[str, Any] = {"prompts": prompts, "seed": seed}
    rows: dict[str, dict[str, float]] = {}
    for method, shape in shapes.items():
        found = guided_search(generator, scorer, problems, count_tokens, settings, shape, tokenizer=tokenizer, **common)
        rows[f"{method}@{n}"] = {
            "accuracy": accuracy(verifier, [settings.separator.join(one.steps) for one in found], solutions),
            "tokens": sum(one.tokens for one in found) / len(found),
            "finished": sum(one.finished for one in found) / len(found),
        }
        budgets = [one.tokens for one in found]
        texts, used = best_of_budget(generator, scorer, problems, count_tokens, settings, budgets=budgets, **common)
        rows[f"best_of_n, tokens of {method}"] = {
            "accuracy": accuracy(verifier, texts, solutions),
            "tokens": sum(used) / len(used),
        }
    return rows
