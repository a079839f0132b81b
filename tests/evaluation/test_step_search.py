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
    texts, used = best_of_budget(policy, no_bad_step, ["p"], words, SearchSettings(token_budget=8))
    assert texts == ["good\n\n\\boxed{1}"] and used == [8]  # 3 + 3, half a sample is left, and a third sample of 2
    policy.calls = 0
    _, used = best_of_budget(policy, no_bad_step, ["p", "q"], words, SearchSettings(), budgets=[7, 1])
    assert used == [6, 3]  # 1 of 7 is less than half a sample; one sample is always drawn


@pytest.mark.parametrize(("budget", "expected"), [(1, 5), (12, 10), (13, 15), (100, 100), (102, 100), (103, 105)])
def test_a_budget_is_met_as_nearly_as_whole_samples_can(budget, expected):
    policy = ScriptedGenerator(lambda prompt, draw: "a b c d \\boxed{1}")
    _, used = best_of_budget(policy, no_bad_step, ["p"], words, SearchSettings(), budgets=[budget])
    assert used == [expected]


def test_the_finished_solution_stands_though_an_abandoned_one_was_longer():
    """Two steps are accepted and taken back one after the other; the third draw is the answer at once."""
    draws = iter(["good one", "good two", "bad", "bad", "\\boxed{1}"])
    policy = ScriptedGenerator(lambda prompt, draw: next(draws))
    (search,) = step_search(policy, no_bad_step, ["p"], words, SearchSettings(tries=1))
    assert search.taken_back == 2 and search.finished
    assert search.best == ["\\boxed{1}"] == search.steps


@pytest.mark.parametrize(
    ("step", "final"),
    [
        ("so \\boxed{4}", True),
        ("2 + 2 = 4\n#### 4", True),
        ("#### -1,000", True),
        ("#### $.5", True),
        ("#### Step 2: add", False),  # a heading
        ("we write #### 4 below", False),
        ("The answer is 4.", False),
    ],
)
def test_what_ends_a_solution(step, final):
    assert SearchSettings().is_final(step) is final
    assert SearchSettings(final_pattern="answer is").is_final(step) is ("answer is" in step)
    with pytest.raises(ValueError, match="is not a regular expression"):
        SearchSettings(final_pattern="(")


def test_best_of_n_gets_the_tokens_that_the_search_used():
    """The search of p ends after 2 tokens, that of q uses up its 60; best-of-n had 2,048 for each before."""
    policy = ScriptedGenerator(
        lambda prompt, draw: (
            "\\boxed{1}" if "good" in prompt else "good\n\n\\boxed{1}" if prompt == "p" else "bad\n\n\\boxed{2}"
        )
    )
    settings = SearchSettings(token_budget=60)
    results = compare_search(policy, no_bad_step, BoxVerifier(), ["p", "q"], ["1", "1"], words, settings)
    assert results["step_search"]["tokens"] == results["best_of_n"]["tokens"] == (2 + 60) / 2
    assert results["step_search"]["finished"] == 0.5


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
    assert results["best_of_n"]["accuracy"] < results["step_search"]["accuracy"]
    assert results["best_of_n"]["tokens"] == pytest.approx(results["step_search"]["tokens"], abs=2)
    with pytest.raises(ValueError, match="tries: got 0"):
        SearchSettings(tries=0)
