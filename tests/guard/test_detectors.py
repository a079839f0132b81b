"""Detectors: hand-worked numbers, brute force, and each mode faked and caught."""

import math
import random
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings, strategies as st

from rlhf_prm.guard import detectors
from rlhf_prm.rl.rollout_metrics import process_auroc
from tests.reward.method_cases import NAN, random_groups, rollouts_of

SOLUTION = ["Tom has 3 apples and buys 4 more.", "3 + 4 = 7, so he holds seven of them.", "The answer is 7."]
PROMPT = "Tom starts with three apples. He then goes to the market for four others. How many are there in the end?"


def plain(steps=(3, 3), outcomes=(1.0, 0.0), scores=0.8, tokens=5):
    table = [[scores] * count if isinstance(scores, float) else list(scores[i]) for i, count in enumerate(steps)]
    return rollouts_of([(table, [[tokens] * count for count in steps], list(outcomes))])


def brute_repetition(text):
    suffixes = sorted(text[i:] for i in range(len(text)))
    total = 0
    for left, right in pairwise(suffixes):
        total += next((k for k, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), len(left))
    return 2 * total / (len(text) * (len(text) + 1)) if text else 0.0


def test_suffix_repetition_by_hand():
    # Sorted suffixes of "banana": a, ana, anana, banana, na, nana: LCP 1 + 3 + 0 + 0 + 2 = 6, over 6·7/2.
    assert detectors.suffix_repetition("banana") == pytest.approx(6 / 21)
    assert detectors.suffix_repetition("aaaa") == pytest.approx(6 / 10)
    assert detectors.suffix_repetition("abcd") == 0.0
    assert detectors.suffix_repetition("") == 0.0
    assert detectors.suffix_repetition([5, 6, 5, 6]) == pytest.approx(detectors.suffix_repetition("abab"))


@settings(deadline=None, max_examples=300)
@given(st.text(alphabet="ab\n", max_size=40) | st.text(max_size=30))
def test_suffix_repetition_equals_sorting_all_suffixes(text):
    assert detectors.suffix_repetition(text) == pytest.approx(brute_repetition(text), abs=1e-12)


def test_the_published_threshold_separates_loops_from_real_solutions(shared_data):
    import json

    rows = [json.loads(line) for line in (shared_data / "math500.jsonl").read_text().splitlines()]
    assert max(detectors.suffix_repetition(row["solution"]) for row in rows[::5]) < detectors.REPETITION_THRESHOLD
    assert detectors.suffix_repetition(rows[0]["solution"] + " So the answer is right." * 60) > 0.2


def test_suffix_repetition_is_linear():
    """Work, not time: every symbol adds at most two states, whatever repeats."""
    generator = random.Random(0)
    for text in ("ab" * 2000, "a" * 4000, "".join(generator.choices("abc", k=4000))):
        counted = _CountingText(text)
        detectors.suffix_repetition(counted)
        assert counted.looks < 20 * len(text)


class _CountingText(str):
    """A text whose symbols count how often they are looked up."""

    looks = 0

    def __iter__(self):
        owner = self

        class Symbol(str):
            def __hash__(self):
                owner.looks += 1
                return str.__hash__(self)

        return (Symbol(symbol) for symbol in str.__str__(self))


def test_process_auroc_leaves_unscorable_rollouts_out():
    rollouts = plain((1, 1, 1, 1), (1.0, 0.0, NAN, 0.0), [[0.9], [0.2], [0.0], [0.95]])
    assert process_auroc(rollouts) == pytest.approx(0.5)
    assert detectors.incorrect_score(rollouts) == pytest.approx((0.2 + 0.95) / 2)
    assert math.isnan(detectors.incorrect_score(plain(outcomes=(1.0, NAN))))


def test_process_auroc_ranks_by_the_lowest_score():
    """By the mean (.6 for the right one, .7 for the wrong one) the order would be the other."""
    rollouts = plain((2, 3), (1.0, 0.0), [[0.6, 0.6], [1.0, 1.0, 0.1]])
    assert process_auroc(rollouts) == 1.0
    assert math.isnan(process_auroc(rollouts, among=torch.tensor([True, False])))


def test_the_verdict_and_not_the_reward_is_measured():
    """With a format reward of 1 for all, every outcome is above 0.5."""
    rollouts = plain((1, 1, 1), (2.0, 1.0, 1.0), [[0.9], [0.2], [0.4]])
    assert math.isnan(process_auroc(rollouts)) and math.isnan(detectors.incorrect_score(rollouts))
    judged = replace(rollouts, verdicts=torch.tensor([1.0, 0.0, NAN]))
    assert process_auroc(judged) == 1.0 and detectors.incorrect_score(judged) == pytest.approx(0.2)


def test_counts_by_hand():
    rollouts = rollouts_of([([[0.5] * 3, [0.5]], [[2, 0, 4], [6]], [1.0, 0.0])], length_padding=99)
    assert detectors.steps_per_rollout(rollouts) == 2.0
    assert detectors.single_step_share(rollouts) == 0.5
    assert detectors.tokens_per_rollout(rollouts) == 6.0
    assert detectors.tokens_per_step(rollouts) == 3.0


def test_step_count_correlation_sees_forms_that_pay_for_steps():
    rollouts = plain((1, 2, 3, 4), (1.0, 0.0, 1.0, 0.0), [[0.9], [0.8] * 2, [0.85] * 3, [0.8] * 4])
    sums = torch.where(rollouts.step_mask, rollouts.step_scores, 0).sum(1)
    assert detectors.step_count_correlation(rollouts, sums) > 0.99
    assert detectors.step_count_correlation(rollouts, -sums) < -0.99
    # Means .9 .8 .85 .8 against 1 2 3 4: covariance −.125 / √(.006875 · 5).
    by_hand = -0.125 / math.sqrt(0.006875 * 5)
    assert detectors.step_count_correlation(rollouts) == pytest.approx(by_hand, abs=1e-4)
    assert math.isnan(detectors.step_count_correlation(plain((2, 2), scores=[[0.1, 0.1], [0.9, 0.9]])))
    assert math.isnan(detectors.step_count_correlation(plain((1, 2, 3, 5), (1.0,) * 4, 0.7)))


def test_no_answer_share():
    answered = [r"so \boxed{7}", "#### 7", "The final answer is 7", "Answer: 7", r"\boxed {x}"]
    silent = ["Let me think about it.", "", "the answers are many", "boxed 7"]
    assert detectors.no_answer_share(answered) == 0.0
    assert detectors.no_answer_share(silent) == 1.0
    assert detectors.no_answer_share(answered[:3] + silent[:1]) == 0.25
    assert math.isnan(detectors.no_answer_share([]))


def test_near_duplicate_share():
    assert detectors.near_duplicate_share([SOLUTION]) == 0.0
    again = [*SOLUTION, "3 + 4 = 7,  so he holds seven of THEM!"]  # case, spacing and a mark apart
    assert detectors.near_duplicate_share([again]) == pytest.approx(1 / 3)
    assert detectors.near_duplicate_share([["x"] * 5, SOLUTION]) == pytest.approx(4 / 6)
    # Different arithmetic of the same form is not a repetition.
    assert detectors.near_duplicate_share([["7 plus 4 is 1", "1 plus 9 is 0", "0 plus 5 is 5"]]) == 0.0
    assert math.isnan(detectors.near_duplicate_share([["only one"]]))
    assert detectors.near_duplicate_share([["first thing", "second point", "first thing"]], window=1) == 0.0
    assert detectors.near_duplicate_share([["first thing", "second point", "first thing"]], window=2) == 0.5


def test_prompt_overlap():
    assert detectors.prompt_overlap([PROMPT], [SOLUTION]) < 0.2
    restated = ["Tom starts with three apples, he then goes to the market for four others.", "7"]
    assert detectors.prompt_overlap([PROMPT], [restated]) == 1.0
    # "tom has", "has three", "three apples": one of three pairs stands in the prompt.
    assert detectors.prompt_overlap([PROMPT], [["Tom has three apples"]]) == pytest.approx(1 / 3)
    assert detectors.prompt_overlap([PROMPT, PROMPT], [restated, SOLUTION]) == 0.5
    assert math.isnan(detectors.prompt_overlap([PROMPT], [["7"]]))
    with pytest.raises(ValueError):
        detectors.prompt_overlap([PROMPT], [SOLUTION, SOLUTION])


def test_divergence_needs_process_up_and_outcome_down():
    up, down, flat = [0.1 * i for i in range(5)], [0.5 - 0.05 * i for i in range(5)], [0.3] * 5
    assert detectors.process_outcome_divergence(up, down, window=5) == pytest.approx(0.2)
    assert detectors.process_outcome_divergence(up, up, window=5) < 0
    assert detectors.process_outcome_divergence(down, down, window=5) < 0
    assert detectors.process_outcome_divergence(up, flat, window=5) == pytest.approx(0.0)
    assert detectors.process_outcome_divergence(up[:4], down[:4], window=5) == 0.0
    # Only the window counts.
    assert detectors.process_outcome_divergence(flat + up, up + down, window=5) == pytest.approx(0.2)
    # By hand: 0, 3, 0 has slope 0; 0, 1, 5 has slope 5/2 over a window of length 2.
    assert detectors.process_outcome_divergence([0.0, 1.0, 5.0], [0.0, -1.0, -5.0], 3) == pytest.approx(5.0)
    assert detectors.process_outcome_divergence([0.0, 3.0, 0.0], [0.0, -1.0, -5.0], 3) == pytest.approx(0.0)
    with pytest.raises(ValueError, match="got 1 and 2 values"):
        detectors.process_outcome_divergence([1.0], [1.0, 2.0])


def test_measurements_catch_each_faked_mode():
    """A batch as it should be, and the same batch with one mode faked: its measure moves the worse way."""
    prompts, good = [PROMPT] * 2, [SOLUTION, ["Four and three make seven.", r"Hence \boxed{7}"]]

    def measured(steps=good, counts=(3, 2), tokens=5, scores=((0.9, 0.8, 0.9), (0.3, 0.2)), outcomes=(1.0, 0.0)):
        rollouts = plain(counts, outcomes, scores, tokens)
        return detectors.measurements(rollouts, prompts, ["\n\n".join(texts) for texts in steps], steps)

    base = measured()
    rambling = ["Let me think again."] * 20
    faked = {
        "no_answer_share": measured([["Seven, I think."], ["Who knows?"]]),
        "single_step_share": measured(counts=(1, 1), scores=((0.9,), (0.3,))),
        "tokens_per_step": measured(tokens=50),
        "steps_per_rollout": measured(counts=(12, 3), scores=((0.9,) * 12, (0.3,) * 3)),
        "suffix_repetition": measured([rambling, rambling]),
        "repetitive_share": measured([rambling, SOLUTION]),
        "near_duplicate_share": measured([rambling, SOLUTION]),
        "prompt_overlap": measured([[PROMPT, "7"], SOLUTION]),
        "incorrect_score": measured(scores=((0.9, 0.8, 0.9), (0.9, 0.9))),
        "step_count_correlation": measured(scores=((0.9, 0.8, 0.9), (0.0, 0.0))),
        "auroc": measured(outcomes=(0.0, 1.0)),
        "tokens_per_rollout": measured(tokens=1),
    }
    assert set(base) == set(faked) == set(detectors.DETECTORS) - {"process_outcome_divergence"}
    assert base["repetitive_share"] == 0.0 and base["auroc"] == 1.0
    for name, batch in faked.items():
        if name == "step_count_correlation":  # two rollouts correlate fully either way
            continue
        worse = batch[name] - base[name]
        assert worse > 0 if detectors.DETECTORS[name].rule.worse == "up" else worse < 0, name


def test_published_thresholds_are_recorded():
    published = {name: d.threshold for name, d in detectors.DETECTORS.items() if d.threshold is not None}
    assert published == {"suffix_repetition": 0.2}
    assert {d.rule.worse for d in detectors.DETECTORS.values()} == {"up", "down"}


def test_rollout_measures_ignore_padding():
    groups = random_groups(21)
    texts = [["a b", "c d"]] * 18
    measured = [
        detectors.measurements(rollouts_of(groups, padding, tokens), ["p"] * 18, ["x"] * 18, texts)
        for padding, tokens in ((NAN, -7), (1e9, 10**6))
    ]
    assert repr(measured[0]) == repr(measured[1])
