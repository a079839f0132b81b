"""Best-of-n against brute force over all subsets, and on real samples."""

import json
import math
from itertools import combinations, permutations

import pytest
from hypothesis import given, settings, strategies as st

from rlhf_prm.evaluation.aggregation import solution_score
from rlhf_prm.evaluation.best_of_n import best_of_n, expected_best_of, expected_majority, pass_at, problem_values
from rlhf_prm.evaluation.samples import SampledProblem, checked_samples, load_samples, policy_samples, scored
from tests.evaluation.fakes import BoxVerifier, RuleScorer, ScriptedGenerator

samples = st.lists(st.tuples(st.sampled_from([0.1, 0.5, 0.9]), st.booleans()), min_size=1, max_size=6)


def test_aggregations_by_hand():
    scores = [0.5, 0.2, 0.8]
    assert [solution_score(scores, how) for how in ("product", "min", "last", "mean")] == pytest.approx(
        [0.08, 0.2, 0.8, 0.5]
    )
    assert solution_score([0.5, math.nan], "last") == -math.inf
    with pytest.raises(ValueError, match="unknown aggregation 'sum'"):
        solution_score(scores, "sum")


def test_equal_scores_have_one_mean_whatever_their_number():
    """Otherwise rounding, not the PRM, would choose between a rollout of three steps and one of four."""
    for score in (0.1, 0.3, 0.7):
        assert {solution_score([score] * steps, "mean") for steps in range(1, 12)} == {score}


@settings(deadline=None)
@given(samples, st.data())
def test_best_of_and_pass_equal_brute_force(drawn, data):
    n = data.draw(st.integers(1, len(drawn)))
    scores, correct = [s for s, _ in drawn], [c for _, c in drawn]
    best, passed, subsets = 0.0, 0, list(combinations(range(len(drawn)), n))
    for subset in subsets:
        top = max(scores[i] for i in subset)
        tied = [i for i in subset if scores[i] == top]
        best += sum(correct[i] for i in tied) / len(tied)
        passed += any(correct[i] for i in subset)
    assert expected_best_of(scores, correct, n) == pytest.approx(best / len(subsets))
    assert pass_at(correct, n) == pytest.approx(passed / len(subsets))


def test_majority_by_hand():
    answers, correct = ["7", "7", "8", None], [True, True, False, False]
    # pairs: 77 → 1; 78 ×2 → ½ each; 7– ×2 → 1; 8– → 0: (1 + 1 + 2 + 0) / 6
    assert expected_majority(answers, correct, 2) == pytest.approx(4 / 6)
    assert expected_majority(answers, correct, 4) == 1.0
    assert expected_majority([None, None], [False, False], 2) == 0.0
    # weights .1 + .1 against .9: the wrong answer wins whenever it is in the pair with a 7
    assert expected_majority(answers, correct, 2, [0.1, 0.1, 0.9, 0.9]) == pytest.approx(3 / 6)


def test_majority_does_not_depend_on_the_order_and_subsampling_is_close():
    answers, correct = ["a", "b", "b", "c"], [True, False, False, False]
    values = set()
    for order in permutations(range(4)):
        values.add(round(expected_majority([answers[i] for i in order], [correct[i] for i in order], 3), 12))
    assert len(values) == 1
    many = ["a"] * 9 + ["b"] * 11  # C(20, 5) = 15504 subsets: sampled
    exact = sum(math.comb(9, k) * math.comb(11, 5 - k) for k in (3, 4, 5)) / math.comb(20, 5)
    got = expected_majority(many, [answer == "a" for answer in many], 5, seed=1)
    assert got == pytest.approx(exact, abs=0.03) and got == expected_majority(
        many, [answer == "a" for answer in many], 5, seed=1
    )


def problem(scores, correct, answers=None):
    answers = answers or [str(c) for c in correct]
    return SampledProblem("p", [["s"] * len(s) for s in scores], correct, answers, scores)


def test_rules_by_hand_and_their_means():
    one = problem([[0.9, 0.9], [0.8, 0.95]], [True, False])
    values = problem_values(one, 2)
    assert (values["mean@1"], values["pass@2"], values["maj@2"]) == (0.5, 1.0, 0.5)
    assert (values["product@2"], values["min@2"], values["last@2"], values["mean@2"]) == (1.0, 1.0, 0.0, 1.0)
    assert values["weighted-maj-last@2"] == 0.0 and values["weighted-maj-min@2"] == 1.0
    other = problem([[0.1], [0.9]], [False, False])
    results = best_of_n([one, other], 2)
    assert results["pass@2"]["mean"] == 0.5 and results["product@2"]["mean"] == 0.5
    assert 0.0 <= results["product@2"]["low"] <= 0.5 <= results["product@2"]["high"] <= 1.0


def test_errors():
    with pytest.raises(ValueError, match="best of 3 needs 3 samples"):
        problem_values(problem([[0.1]], [True]), 3)
    with pytest.raises(ValueError, match="no step scores"):
        problem_values(SampledProblem("p", [["s"]], [True], ["1"]), 1)
    with pytest.raises(ValueError, match="got no problems"):
        best_of_n([], 1)
    with pytest.raises(ValueError, match="expected as many of each"):
        SampledProblem("p", [["s"]], [True, False], ["1"])


def test_samples_from_texts_files_and_policies(tmp_path):
    texts = [["one\n\nAnswer \\boxed{1}", "\\boxed{ 2 }", "no answer"], ["\\boxed{1}"]]
    checked = checked_samples(["p", "q"], texts, ["1", "?"], BoxVerifier())
    assert len(checked) == 1  # the gold of q cannot be read
    assert checked[0].steps == [["one", "Answer \\boxed{1}"], ["\\boxed{ 2 }"], ["no answer"]]
    assert checked[0].correct == [True, False, False] and checked[0].answers == ["1", "2", None]
    with_scores = scored(checked, RuleScorer(lambda problem, before, step: len(before) / 2))
    assert with_scores[0].step_scores == [[0.0, 0.5], [0.0], [0.0]]

    path = tmp_path / "samples.jsonl"
    rows = [
        {"problem": "q", "completions": ["\\boxed{1}"], "solution": "?"},
        {"prompt": "r", "responses": ["\\boxed{3}"], "solution": "3", "policy": "m"},
        {"prompt": "p", "completions": texts[0], "solution": 1, "category": "c", "first_errors": [-1, 0, 0]},
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    loaded = load_samples(path, BoxVerifier())
    assert [(s.problem, s.category, s.first_errors) for s in loaded] == [("r", None, None), ("p", "c", [-1, 0, 0])]
    assert loaded[0].correct == [True]
    path.write_text('{"problem": "p"}')
    with pytest.raises(ValueError, match=r"samples\.jsonl:1: no gold answer in solution or answer"):
        load_samples(path, BoxVerifier())

    generator = ScriptedGenerator(lambda prompt, draw: f"\\boxed{{{draw % 2}}}")
    drawn = policy_samples(generator, ["p"], ["1"], BoxVerifier(), 4, prompts=["chat p"])
    assert drawn[0].correct == [False, True, False, True] and drawn[0].problem == "p"


def test_samples_do_not_depend_on_how_many_prompts_a_call_has():
    class Seeded:
        def __init__(self):
            self.calls = []

        def generate(self, prompts, n, *, seed, stop):
            self.calls.append(len(prompts))
            return [[f"\\boxed{{{(row_seed + j) % 7}}}" for j in range(n)] for row_seed in seed]

    problems = [f"p{i}" for i in range(7)]
    whole, cut = Seeded(), Seeded()
    common = (problems, ["1"] * 7, BoxVerifier(), 3)
    assert policy_samples(whole, *common, seed=5) == policy_samples(cut, *common, seed=5, part=3)
    assert whole.calls == [7] and cut.calls == [3, 3, 1]
    assert policy_samples(Seeded(), *common, seed=6) != policy_samples(Seeded(), *common, seed=5)


def test_real_samples(shared_data):
    """Four real outputs per GSM8K problem with their authors' verdicts: mean@1 < majority ≤ pass@4, a perfect score
    reaches pass@4."""
    loaded = []
    for line in (shared_data / "gsm8k_example_model_solutions.jsonl").read_text().splitlines():
        row = json.loads(line)
        outputs = [value for value in row.values() if isinstance(value, dict)]
        answers = [output["solution"].rpartition("A:")[2].strip() or None for output in outputs]
        correct = [bool(output["is_correct"]) for output in outputs]
        scores = [[float(right)] for right in correct]
        loaded.append(SampledProblem(row["question"], [["s"]] * len(outputs), correct, answers, scores))
    results = {rule: values["mean"] for rule, values in best_of_n(loaded, 4, resamples=50).items()}
    assert results["product@4"] == results["pass@4"] > results["maj@4"] > results["mean@1"] > 0.2


def test_real_samples_against_brute_force(shared_data):
    """Every rule on 150 real problems from loops over all subsets, which share no code with ours."""
    lines = (shared_data / "gsm8k_example_model_solutions.jsonl").read_text().splitlines()[:150]
    loaded, by_hand = [], {"pass@3": 0.0, "maj@3": 0.0, "last@3": 0.0, "min@3": 0.0, "mean@1": 0.0}
    for line in lines:
        row = json.loads(line)
        outputs = [value for value in row.values() if isinstance(value, dict)]
        answers = [output["solution"].rpartition("A:")[2].strip() or None for output in outputs]
        correct = [bool(output["is_correct"]) for output in outputs]
        steps = [output["solution"].splitlines() for output in outputs]
        scores = [[(len(step) % 11) / 11 for step in one] for one in steps]
        loaded.append(SampledProblem(row["question"], steps, correct, answers, scores))
        subsets = [[i for i in range(4) if i != left_out] for left_out in range(4)]
        by_hand["mean@1"] += sum(correct) / 4
        for subset in subsets:
            by_hand["pass@3"] += any(correct[i] for i in subset) / 4
            for rule, value in {"last@3": [one[-1] for one in scores], "min@3": [min(one) for one in scores]}.items():
                top = [i for i in subset if value[i] == max(value[j] for j in subset)]
                by_hand[rule] += sum(correct[i] for i in top) / len(top) / 4
            given = [answers[i] for i in subset if answers[i] is not None]
            most = {answer for answer in given if given.count(answer) == max(map(given.count, given))}
            verdicts = {a: [c for c, b in zip(correct, answers, strict=True) if a == b] for a in most}
            right = [a for a in most if 2 * sum(verdicts[a]) > len(verdicts[a])]
            by_hand["maj@3"] += len(right) / len(most) / 4 if most else 0.0
    results = best_of_n(loaded, 3, resamples=2)
    for rule, total in by_hand.items():
        assert results[rule]["mean"] == pytest.approx(total / len(lines)), rule
