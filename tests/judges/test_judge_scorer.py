"""JudgeScorer on scripted answers: shares of votes, what is asked and what is not, what is counted, what is kept."""

import gc
import json
import math
import threading
import weakref
from types import SimpleNamespace

import pytest

from rlhf_prm.generation.requests import GenerationError
from rlhf_prm.judges.budget import Budget, Meter, Prices
from rlhf_prm.judges.cache import VerdictCache
from rlhf_prm.judges.load import load_judge
from rlhf_prm.judges.stats import judge_metrics
from rlhf_prm.prm.protocol import StepScorer
from rlhf_prm.step_data import read_rows
from tests.judges.scripted_judge import STEP, Scripted, first_bad, paper, told

NAN = math.nan
STEPS = ["one", "two", "three"]


def judge_of(script, **keywords):
    return load_judge("m", generator=Scripted(script), **keywords)


def same(got, wanted):
    assert len(got) == len(wanted)
    for row, expected in zip(got, wanted, strict=True):
        assert row == pytest.approx(expected, nan_ok=True), (got, wanted)


class Trainer(SimpleNamespace):
    """What a judge asks of a trainer."""


def attached(judge, folder, update=0, ranks=1, training=True):
    trainer = Trainer(
        is_in_train=True,
        state=SimpleNamespace(global_step=update),
        accelerator=SimpleNamespace(num_processes=ranks),
        args=SimpleNamespace(output_dir=str(folder)),
        model=SimpleNamespace(training=training),
    )
    judge.attach(trainer)
    return trainer


def test_a_judge_lets_go_of_its_trainer_and_still_answers(tmp_path):
    judge = judge_of(lambda _: told(1))
    trainer = weakref.ref(attached(judge, tmp_path, training=False))
    same(judge.score(["p"], [STEPS]), [[NAN, NAN, NAN]])  # held out: not asked
    assert trainer() is not None
    judge.detach()
    gc.collect()
    assert trainer() is None
    same(judge.score(["p"], [STEPS]), [[1.0, 0.0, NAN]])
    assert not (tmp_path / "judged.jsonl").exists()


@pytest.mark.parametrize(
    ("behind_error", "wanted"), [("unscored", [1.0, 0.5, 0.5]), ("wrong", [1.0, 0.5, 0.25])], ids=str
)
def test_shares_of_votes_by_hand(behind_error, wanted):
    """First errors 2nd, none, 2nd, 3rd. Step 2 holds in 2 of 4; step 3 in 1 of the 2 that look at it, or of all 4."""
    judge = judge_of(lambda _: [told(1), told(-1), told(1), told(2)], votes=4, behind_error=behind_error)
    assert isinstance(judge, StepScorer)
    same(judge.score(["p"], [STEPS]), [wanted])
    assert judge.stats.judge_calls == judge.stats.judge_votes == 4


def test_steps_behind_an_error_that_all_votes_name_are_left_out():
    judge = judge_of(lambda _: told(1), votes=2)
    same(judge.score(["p"], [STEPS]), [[1.0, 0.0, NAN]])
    assert (judge.stats.judge_steps_left_out, judge.stats.judge_unscored_steps) == (1, 0)
    same(judge_of(lambda _: told(1), behind_error="wrong").score(["p"], [STEPS]), [[1.0, 0.0, 0.0]])


def test_verdicts_of_single_steps():
    listed = "Fine.\n<verdicts>\n1: correct\n2: incorrect\n3: correct\n</verdicts>"
    other = "<verdicts>\n1: Correct.\n**2: correct**\nParagraph 3: correct\n</verdicts>"
    judge = judge_of(lambda _: [listed, other], votes=2, form="verdicts")
    same(judge.score(["p"], [STEPS]), [[1.0, 0.5, 1.0]])


def test_equal_rollouts_and_known_ones_are_not_asked_again():
    judge = judge_of(lambda text: first_bad, votes=2)
    rollouts = [["a", "bad"], ["a", "b"], ["a", "bad"]]
    wanted = [[1.0, 0.0], [1.0, 1.0], [1.0, 0.0]]
    same(judge.score(["p"] * 3, rollouts), wanted)
    assert (judge.stats.judge_calls, judge.stats.judge_duplicates, judge.stats.judge_cache_hits) == (4, 2, 0)
    same(judge.score(["p"] * 3, rollouts), wanted)
    assert (judge.stats.judge_calls, judge.stats.judge_cache_hits) == (4, 4)
    judge.score(["another problem"], [["a", "bad"]])
    assert judge.stats.judge_calls == 6
    forgetful = judge_of(lambda text: first_bad, cache=0)
    forgetful.score(["p"], [["a"]])
    forgetful.score(["p"], [["a"]])
    assert forgetful.stats.judge_calls == 2


def test_the_order_of_rollouts_changes_no_seed():
    def seeds(rollouts):
        judge = judge_of(lambda text: first_bad, votes=2, seed=3)
        judge.score(["p"] * len(rollouts), rollouts)
        return {(text, seed) for text, seed in judge.generator.asked}

    assert seeds([["a"], ["b"]]) == seeds([["b"], ["a"], ["b"]])
    assert len(seeds([["a"], ["b"]])) == 4
    assert {seed for _, seed in seeds([["a"]])}.isdisjoint({s for _, s in judge_seeds_of_another_run()})


def judge_seeds_of_another_run():
    judge = judge_of(lambda text: first_bad, votes=2, seed=4)
    judge.score(["p"], [["a"]])
    return judge.generator.asked


@pytest.mark.parametrize(
    "bad",
    [
        "I cannot judge this.",
        "<analysis_1>Richtig.</analysis_1><Fazit>Richtig</Fazit>",
        "<analysis_1>x</analysis_1><analysis_2>x",
        "<analysis_1>x</analysis_1><conclusion>Correct</conclusion>",
        "<think>it goes on and on",
        "",
    ],
    ids=["refusal", "wrong language and tags", "cut off", "one of three", "only thoughts", "empty"],
)
def test_what_cannot_be_read_is_asked_again_then_nan_and_counted(bad):
    judge = judge_of(lambda _: [bad, told(-1)], attempts=2)
    same(judge.score(["p"], [STEPS]), [[1.0] * 3])
    assert judge.stats.judge_calls == 2 and len({seed for _, seed in judge.generator.asked}) == 2
    hopeless = judge_of(lambda text: bad if "never" in text else told(2), attempts=3, votes=2)
    same(hopeless.score(["never", "p"], [STEPS, STEPS]), [[NAN] * 3, [1.0, 1.0, 0.0]])
    stats = hopeless.stats
    assert (stats.judge_calls, stats.judge_unreadable, stats.judge_unscored_steps) == (8, 2, 3)
    assert judge_metrics(vars(stats))["prm/judge_unreadable_frac"] == 0.5


def test_a_refused_question_costs_its_rollout_only():
    judge = judge_of(lambda text: GenerationError("too long") if "long" in text else told(-1))
    same(judge.score(["p", "long", "p"], [["a"], ["b"], ["c"]]), [[1.0], [NAN], [1.0]])
    assert (judge.stats.judge_failed, judge.stats.judge_unscored_steps) == (1, 1)
    judge.generator.script = lambda _: told(-1)
    same(judge.score(["long"], [["b"]]), [[1.0]])  # it was not an answer, so it is asked again


def test_a_budget_takes_second_votes_before_rollouts():
    judge = judge_of(lambda text: first_bad, votes=2, budget_calls=4)
    same(judge.score(["p"] * 3, [["a"], ["bad"], ["c"]]), [[1.0], [0.0], [1.0]])
    assert (judge.stats.judge_calls, judge.stats.judge_over_budget) == (4, 2)
    judge = judge_of(lambda text: first_bad, budget_calls=2)
    same(judge.score(["p"] * 3, [["a"], ["bad"], ["c"]]), [[1.0], [0.0], [NAN]])
    assert (judge.stats.judge_over_budget, judge.stats.judge_unscored_steps) == (1, 1)
    same(judge.score(["p"], [["c"]]), [[1.0]])  # a new update has the whole budget
    judge = judge_of(lambda text: first_bad, budget_calls=2)
    judge.share_budget()  # as a command does, which scores in parts
    same(judge.score(["p"] * 2, [["a"], ["bad"]]), [[1.0], [0.0]])
    same(judge.score(["p"], [["c"]]), [[NAN]])


def test_a_budget_counts_updates_and_ranks(tmp_path):
    judge = judge_of(lambda text: first_bad, budget_calls=4)
    attached(judge, tmp_path, ranks=2)
    trainer = attached(judge, tmp_path, ranks=2)  # the run beside it has a trainer of its own, and no smaller budget
    same(judge.score(["p"], [["a"]]), [[1.0]])
    same(judge.score(["p"] * 2, [["b"], ["c"]]), [[1.0], [NAN]])  # the same update: 2 of 2 are spent
    trainer.state.global_step = 1
    same(judge.score(["p"], [["c"]]), [[1.0]])


def test_what_tokens_cost_and_when_they_are_spent():
    class Host:
        usage = SimpleNamespace(prompt_tokens=0, completion_tokens=0, failures={})

    meter = Meter(Host(), Budget(tokens=100), Prices(2.0, 10.0))
    meter.begin(1)
    Host.usage.prompt_tokens, Host.usage.completion_tokens = 60, 30
    assert meter.allows() and meter.cost() == pytest.approx((60 * 2 + 30 * 10) / 1e6)
    Host.usage.completion_tokens = 40
    assert not meter.allows()
    meter.begin(1)
    assert not meter.allows()
    meter.begin(2)
    assert meter.allows()
    meter.budget = Budget(cost=0.0001)
    Host.usage.completion_tokens += 10
    assert not meter.allows()
    counted = judge_of(lambda _: told(-1), price_completion=1e6)
    counted.score(["p"], [["a"]])
    answer = len(paper(-1, 1)) / 3.5
    assert counted.stats.judge_completion_tokens == pytest.approx(answer) == counted.stats.judge_cost
    assert counted.stats.judge_prompt_tokens > 100


def test_seconds_end_an_update():
    judge = judge_of(lambda text: first_bad, budget_seconds=1e-9)
    same(judge.score(["p"], [["a"]]), [[NAN]])
    assert judge.stats.judge_over_budget == 1 and judge.stats.judge_calls == 0


def test_submit_returns_before_the_judge_has_answered():
    gate = threading.Event()

    def script(text):
        assert gate.wait(20)
        return told(-1)

    judge = judge_of(script)
    pending = judge.submit(["p"], [["a"]])
    assert not pending.done()
    gate.set()
    same(pending.result(), [[1.0]])
    assert pending.done()


def test_what_the_judge_raises_is_raised_where_it_is_waited_for():
    judge = judge_of(lambda _: RuntimeError("out of memory"))
    pending = judge.submit(["p"], [["a"]])
    with pytest.raises(RuntimeError, match="out of memory"):
        pending.result()


def test_every_verdict_is_kept_as_a_row_to_train_on(tmp_path):
    errors = {"p": [1, 1, -1], "q": [-1] * 3, "tie": [0, 1, 2]}
    judge = judge_of(
        lambda text: [told(e) for e in errors[text.split("[Math Problem]\n\n")[1].split("\n")[0]]], votes=3
    )
    attached(judge, tmp_path)
    judge.score(["p", "q", "tie"], [STEPS] * 3)
    rows = {row["prompt"]: row for row in read_rows(tmp_path / "judged.jsonl")}
    assert rows["p"]["labels"] == [True, False, False] and rows["p"]["source"] == "judge:m"
    assert rows["p"]["soft_labels"] == pytest.approx([1.0, 1 / 3, 0.0])
    assert rows["q"]["labels"] == [True] * 3 and rows["q"]["soft_labels"] == [1.0] * 3
    assert set(rows) == {"p", "q"}  # a tie is no label
    judge.score(["p", "q"], [STEPS] * 2)  # known: not written twice
    assert len((tmp_path / "judged.jsonl").read_text().splitlines()) == 2


def test_a_run_that_goes_on_takes_back_what_it_has_paid_for(tmp_path):
    first = judge_of(lambda text: first_bad, votes=2)
    attached(first, tmp_path)
    first.score(["p"] * 2, [["a", "bad", "c"], ["a"]])
    with open(tmp_path / "judged.jsonl", "ab") as file:
        file.write(b'{"prompt": "torn')  # a kill
    resumed = judge_of(lambda text: pytest.fail("asked again"), votes=2)
    attached(resumed, tmp_path)
    same(resumed.score(["p"] * 2, [["a"], ["a", "bad", "c"]]), [[1.0], [1.0, 0.0, NAN]])
    assert resumed.stats.judge_cache_hits == 4
    other = judge_of(lambda text: first_bad, votes=2, seed=1)  # other settings, other verdicts
    attached(other, tmp_path)
    other.score(["p"], [["a"]])
    assert other.stats.judge_calls == 2
    lines = (tmp_path / "judged.jsonl").read_text().splitlines()
    assert len(lines) == 3 and all(json.loads(line) for line in lines)  # the torn line is gone


def test_in_held_out_evaluations_it_is_asked_on_demand_only(tmp_path):
    for in_evaluation, wanted in ((False, [[NAN]]), (True, [[1.0]])):
        judge = judge_of(lambda text: first_bad, in_evaluation=in_evaluation)
        trainer = attached(judge, tmp_path, training=False)
        same(judge.score(["p"], [["a"]]), wanted)
    assert not (tmp_path / "judged.jsonl").exists()  # held-out solutions are nothing to train on
    trainer.is_in_train = False  # after the run whoever asks gets an answer
    judge.in_evaluation = False
    same(judge.score(["p"], [["b"]]), [[1.0]])


def test_a_rollout_without_steps_is_not_asked_about():
    judge = judge_of(lambda text: first_bad)
    assert judge.score(["p", "p"], [[], ["a"]]) == [[], [1.0]]
    assert judge.stats.judge_calls == 1 and judge.score([], []) == []


def test_the_question_holds_the_problem_and_the_steps():
    judge = judge_of(lambda text: first_bad)
    judge.score(["What is 1 + 1?"], [STEPS])
    ((question, _),) = judge.generator.asked
    assert "What is 1 + 1?" in question and STEP.findall(question) == STEPS


def test_the_cache_forgets_the_oldest():
    cache = VerdictCache(2)
    for key in "ab":
        cache.put(key, key)
    assert cache.get("a") == "a"
    cache.put("c", "c")
    assert (cache.get("a"), cache.get("b"), cache.get("c"), len(cache)) == ("a", None, "c", 2)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"votes": 0}, "votes: got 0, expected a whole number of at least 1"),
        ({"attempts": 0}, "attempts: got 0"),
        ({"form": "essay"}, "form: unknown judge form 'essay'.*thinkprm"),
        ({"behind_error": "right"}, "behind_error: got 'right', expected one of unscored, wrong"),
        ({"budget_tokens": -1}, "budget_tokens: got -1, expected a number above 0"),
        ({"price_prompt": -1}, "price_prompt: got -1"),
        ({"cache": -1}, "cache: got -1"),
        ({"rubric": "r.jsonl"}, "rubric: got one with form 'auto'"),
        ({"form": "rubric"}, "rubric: got none with form 'rubric'"),
        ({"temperature": 0.5}, "temperature: got a value beside a generator"),
    ],
)
def test_settings_say_what_is_wrong(keywords, message):
    with pytest.raises(ValueError, match=message):
        judge_of(lambda _: "", **keywords)


def test_a_judge_needs_a_name_and_known_keywords():
    from rlhf_prm.judges.load import check_judge_keywords

    with pytest.raises(ValueError, match="got 'judge:' without a model"):
        load_judge("judge:", generator=Scripted(first_bad))
    with pytest.raises(ValueError, match="a judge has no keyword 'vote'; it has endpoint, "):
        check_judge_keywords({"vote": 4})
