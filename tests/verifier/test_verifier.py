"""MathVerifier: verdicts, statuses, settings, repeated answers, threads, waiting."""

import asyncio
import subprocess
import sys
import threading

import pytest

from reward import STATUSES, MathVerifier, Verdict, outcome_reward
from reward.verifier import status_fractions


@pytest.fixture(scope="module")
def verifier():
    with MathVerifier(workers=2) as verifier:
        yield verifier


def test_every_form_of_gold(verifier):
    golds = ["42", r"\boxed{42}", "$42$", "so 6 * 7 = 42\n#### 42", r"We get $6\cdot 7=\boxed{42}$."]
    verdicts = verifier.verify([r"so \boxed{42}"] * 5 + [r"so \boxed{41}"] * 5, golds * 2)
    assert [v.status for v in verdicts] == ["correct"] * 5 + ["incorrect"] * 5
    assert [v.reward for v in verdicts] == [1.0] * 5 + [0.0] * 5
    assert [v.answer for v in verdicts] == ["42"] * 5 + ["41"] * 5


def test_statuses_that_need_no_comparison(verifier, caplog):
    verdicts = verifier.verify(["I do not know", r"\boxed{1}", r"\boxed{1", r"\boxed{1}"], ["1", None, "1", "  "])
    assert [(v.status, v.reward) for v in verdicts] == [
        ("no_answer", 0.0),
        ("bad_gold", None),
        ("no_answer", 0.0),
        ("bad_gold", None),
    ]
    verifier.verify([r"\boxed{1}"], [None])
    named = [record.getMessage() for record in caplog.records if "no gold" in record.getMessage()]
    assert len(named) == 2 and "row 1" in named[0] and "row 3" in named[1]  # each bad gold once, with its row


def test_submit_returns_before_the_work_is_done_and_keeps_the_order(verifier):
    completions = [rf"\boxed{{\frac{{{n}}}{{2}}}}" for n in range(1, 41)]
    pending = verifier.submit(completions, [f"{n / 2}" for n in range(1, 41)])
    assert all(v.status == "correct" for v in pending.result())
    assert pending.result()[3].answer == r"\frac{4}{2}"


def test_from_a_coroutine(verifier):
    async def both():
        return await asyncio.gather(*(one(n) for n in (1, 2)))

    async def one(n):
        return (await verifier.submit([rf"\boxed{{{n}}}"], ["1"]))[0].status

    assert asyncio.run(both()) == ["correct", "incorrect"]


def test_eight_threads_at_once(verifier):
    results = {}

    def work(index):
        golds = [str(n) for n in range(50)]
        results[index] = verifier.verify([rf"\boxed{{{n + index % 2}}}" for n in range(50)], golds)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    [thread.start() for thread in threads]
    [thread.join(timeout=60) for thread in threads]
    assert [sum(v.reward for v in results[index]) for index in range(8)] == [50, 0] * 4


def test_outcome_reward_takes_texts_and_messages_and_logs():
    metrics, columns = {}, {}
    rewards = outcome_reward(
        [r"\boxed{1}", [{"role": "assistant", "content": r"\boxed{2}"}], r"\boxed{3}"],
        ["1", "1", None],
        log_extra=columns.__setitem__,
        log_metric=metrics.__setitem__,
        prompts=["unused"],
    )
    assert rewards == [1.0, 0.0, None]
    assert columns["verifier_status"] == ["correct", "incorrect", "bad_gold"]
    assert metrics["verifier/correct_frac"] == pytest.approx(1 / 3) and len(metrics) == len(STATUSES)


def test_status_fractions_sum_to_one():
    verdicts = [Verdict(1.0, "correct", "1", 0.0), Verdict(0.0, "timeout", "1", 5.0)]
    fractions = status_fractions(verdicts)
    assert sum(fractions.values()) == 1 and fractions["verifier/timeout_frac"] == 0.5


@pytest.mark.parametrize("setting", [{"workers": 0}, {"deadline": 0.0}, {"memory_limit": 1000}, {"cache_size": 0}])
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(ValueError, match="got"):
        MathVerifier(**setting)


def test_a_closed_verifier_says_so():
    verifier = MathVerifier(workers=1)
    verifier.close()
    with pytest.raises(RuntimeError, match="closed"):
        verifier.verify([r"\boxed{1}"], ["2"])


def test_workers_do_not_load_torch():
    code = "import sys, reward.verifier.worker, reward.verifier.answers.judge; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
