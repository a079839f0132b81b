"""Step-wise search on a scripted policy: which steps it keeps, resamples and takes back, and what it pays."""

import pytest

from rlhf_prm.evaluation.step_search import SearchSettings, best_of_budget, compare_search, step_search
from tests.evaluation.fakes import BoxVerifier, RuleScorer, ScriptedGenerator


def words(text: str) -> int:
    return len(text.split())


no_bad_step = RuleScorer(lambda problem, before, step: 0.1 if "bad" in step else 0.9)


def test_accepts_good_steps_until_the_final_one():
    policy = ScriptedGenerator(
        lambda prompt, draw: f"step {prompt.count('step')}" if prompt.count("step") < 2 else "\\boxed{1}\n\nmore"
    )
    (search,) = step_search(policy, no_bad_step, ["p "], words, SearchSettings())
    assert search.best == ["step 0", "step 1", "\\boxed{1}"] and search.finished
    assert (search.tokens, search.resampled, search.taken_back) == (5, 0, 0)


def test_resamples_a_rejected_step():
    policy = ScriptedGenerator(lambda prompt, draw: "bad idea" if draw < 300 else "\\boxed{1}")
    (search,) = step_search(policy, no_bad_step, ["p"], words, SearchSettings())
    assert search.best == ["\\boxed{1}"] and search.resampled == 2 and search.tokens == 5


def test_takes_a_step_back_when_nothing_good_follows():
    """After "trap" only bad steps follow; the first step is drawn anew once it is taken back."""
    policy = ScriptedGenerator(
        lambda prompt, draw: "bad" if "trap" in prompt else ("trap" if draw == 100 else "\\boxed{1}")
    )
    (search,) = step_search(policy, no_bad_step, ["p"], words, SearchSettings(tries=3))
    assert search.best == ["\\boxed{1}"] and search.taken_back == 1 and search.resampled == 3
    assert search.tokens == 1 + 3 + 1


def test_the_budget_ends_a_hopeless_search_and_its_furthest_steps_stand():
    policy = ScriptedGenerator(lambda prompt, draw: "good" if prompt == "p" else "bad")
    (search,) = step_search(policy, no_bad_step, ["p"], words, SearchSettings(token_budget=10))
    assert search.tokens == 10 and not search.finished and search.best == ["good"]


def test_an_empty_step_is_a_miss_and_long_solutions_end():
    policy = ScriptedGenerator(lambda prompt, draw: "")
    (search,) = step_search(policy, no_bad_step, ["p"], words, SearchSettings(token_budget=4))
    assert search.best == [] and search.tokens == 4  # an empty draw still costs a token
    policy = ScriptedGenerator(lambda prompt, draw: "more")
    (search,) = step_search(policy, no_bad_step, ["p"], words, SearchSettings(max_steps=5))
    assert search.best == ["more"] * 5 and search.finished


def test_best_of_budget_draws_until_the_tokens_are_spent():
    policy = ScriptedGenerator(lambda prompt, draw: "bad a\n\n\\boxed{2}" if draw < 300 else "good\n\n\\boxed{1}")
    texts, used = best_of_budget(policy, no_bad_step, ["p"], words, SearchSettings(token_budget=7))
    assert texts == ["good\n\n\\boxed{1}"] and used == [8]  # 3 + 3 < 7, and a third sample of 2


def test_search_beats_best_of_n_where_one_step_decides():
    """Half of the draws of each of three steps are bad: a whole sample is right 1 time in 8, a step 1 in 2."""

    def script(prompt, draw):
        import random

        lines = []
        start = 0 if prompt.startswith("p") and "\n\n" not in prompt else prompt.count("\n\n")
        generator = random.Random(draw * 31 + len(prompt))
        for index in range(start, 3):
            word = generator.choice(["good", "bad"])
            lines.append(f"{word} \\boxed{{{1 if word == 'good' else 2}}}" if index == 2 else word)
        return "\n\n".join(lines)

    settings = SearchSettings(token_budget=16)
    problems = [f"p{index}" for index in range(40)]
    results = compare_search(
        ScriptedGenerator(script), no_bad_step, BoxVerifier(), problems, ["1"] * 40, words, settings
    )
    assert results["step_search"]["accuracy"] > 0.9
    assert results["step_search"]["tokens"] < results["best_of_n"]["tokens"]
    with pytest.raises(ValueError, match="tries: got 0"):
        SearchSettings(tries=0)
