"""Greedy search, beam search and DVTS on scripted policies: what is kept, and what it costs."""

import pytest

from rlhf_prm.evaluation.guided_search import Shape, compare_guided, guided_search, shape_of
from rlhf_prm.evaluation.step_search import SearchSettings
from tests.evaluation.fakes import BoxVerifier, RuleScorer


def words(text: str) -> int:
    return len(text.split())


class Menu:
    """Offers, after each prefix, a fixed list of next steps in turn; remembers what it was asked."""

    def __init__(self, menu):
        self.menu, self.asked = menu, []

    def generate(self, prompts, n, *, seed=None, stop=None):
        self.asked.append((list(prompts), n))
        return [[self.menu[prompt][draw % len(self.menu[prompt])] for draw in range(n)] for prompt in prompts]


def by_number(problem, before, step) -> float:
    """The score of a step is the number it ends with, in tenths."""
    return int(step.rstrip("}")[-1]) / 10


TREE = {
    "p": ["a 9", "b 8"],
    "pa 9\n\n": ["\\boxed{1}", "\\boxed{2}"],  # the best first step leads to bad ends
    "pb 8\n\n": ["\\boxed{7}", "\\boxed{3}"],
}
SETTINGS = SearchSettings(aggregation="last")


def test_greedy_keeps_the_best_step_and_never_looks_back():
    policy = Menu(TREE)
    (found,) = guided_search(policy, RuleScorer(by_number), ["p"], words, SETTINGS, shape_of("greedy", 2, 1))
    assert found.steps == ["a 9", "\\boxed{2}"] and found.finished
    assert found.tokens == 2 * 2 + 2 * 1  # every candidate is paid for
    assert policy.asked == [(["p"], 2), (["pa 9\n\n"], 2)]


def test_a_beam_keeps_the_runner_up():
    policy = Menu(TREE)
    (found,) = guided_search(policy, RuleScorer(by_number), ["p"], words, SETTINGS, shape_of("beam", 4, 2))
    assert found.steps == ["b 8", "\\boxed{7}"]
    assert policy.asked == [(["p"], 4), (["pa 9\n\n", "pb 8\n\n"], 2)]
    assert found.tokens == 4 * 2 + 4 * 1


def test_trees_of_dvts_do_not_compete():
    """Each of two trees has its own two candidates for the first step; the better end answers."""

    class TwoTrees(Menu):
        def generate(self, prompts, n, *, seed=None, stop=None):
            if prompts == ["p", "p"]:
                self.asked.append((list(prompts), n))
                return [["a 9", "a 1"], ["b 8", "b 1"]]
            return super().generate(prompts, n, seed=seed, stop=stop)

    policy = TwoTrees(TREE)
    (found,) = guided_search(policy, RuleScorer(by_number), ["p"], words, SETTINGS, shape_of("dvts", 4, 2))
    assert found.steps == ["b 8", "\\boxed{7}"]
    assert policy.asked == [(["p", "p"], 2), (["pa 9\n\n", "pb 8\n\n"], 2)]


def test_equal_candidates_fill_one_place():
    policy = Menu({**TREE, "p": ["a 9", "a 9", "a 9", "b 8"]})
    (found,) = guided_search(policy, RuleScorer(by_number), ["p"], words, SETTINGS, Shape(1, 2, 2))
    assert found.steps == ["b 8", "\\boxed{7}"]


def test_a_finished_beam_stays_and_the_budget_ends_the_rest():
    menu = {"p": ["\\boxed{5}", "go 6"], "pgo 6\n\n": ["go 4"], "pgo 6\n\ngo 4\n\n": ["go 4"]}
    settings = SearchSettings(aggregation="last", token_budget=6)
    (found,) = guided_search(Menu(menu), RuleScorer(by_number), ["p"], words, settings, Shape(1, 2, 1))
    assert found.steps == ["\\boxed{5}"] and found.finished  # the other is ahead by its score, but has no end
    (cut,) = guided_search(Menu({"p": ["go 1"]}), RuleScorer(by_number), ["p"], words, settings, Shape(1, 1, 3))
    assert (cut.steps, cut.finished, cut.tokens) == (["go 1"], False, 6)


def test_problems_of_different_length_pay_their_own_tokens_and_so_does_best_of_n():
    """q ends after one step, p after two; best-of-n draws whole samples for the tokens of each."""

    class Policy(Menu):
        def generate(self, prompts, n, *, seed=None, stop=None):
            if stop is None:
                return [["a 9\n\n\\boxed{1}" if prompt == "p" else "\\boxed{1}"] * n for prompt in prompts]
            return super().generate(prompts, n, seed=seed, stop=stop)

    policy = Policy({**TREE, "q": ["\\boxed{1}", "\\boxed{0}"]})
    rows = compare_guided(
        policy, RuleScorer(by_number), BoxVerifier(), ["p", "q"], ["2", "1"], words, SETTINGS, ["greedy"], n=2
    )
    assert rows["greedy@2"] == {"accuracy": 1.0, "tokens": (6 + 2) / 2, "finished": 1.0}
    assert rows["best_of_n, tokens of greedy"] == {"accuracy": 0.5, "tokens": (6 + 2) / 2}


def test_refused_shapes():
    with pytest.raises(ValueError, match="expected one of greedy, beam, dvts"):
        shape_of("mcts", 8, 4)
    with pytest.raises(ValueError, match="n=6 and 4 candidates"):
        shape_of("beam", 6, 4)
    assert shape_of("dvts", 8, 4) == Shape(2, 1, 4) and shape_of("beam", 8, 4) == Shape(1, 2, 4)
