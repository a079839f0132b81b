"""Completions that hang, crash or swell other verifiers, in one batch with good ones."""

import gzip
import json
import threading
import time
from pathlib import Path

import psutil
import pytest

from reward import MathVerifier
from reward.verifier import GIB

WORKERS, DEADLINE = 2, 5.0
GOOD = [r"so it is $\boxed{\frac12}$", r"\boxed{0.5}", r"\[ \boxed{\frac{2}{4}} \]", r"\boxed{x=\frac{3}{6}}"]
ALSO_RIGHT = {"unicode/half"}  # ½


HERE = Path(__file__).parent


@pytest.fixture(scope="module", params=["short", "all"])
def adversarial(request):
    """The short ones, which are shipped; all of them where the data folder is there."""
    if request.param == "short":
        return [json.loads(line) for line in (HERE / "data" / "adversarial_short.jsonl").read_text().splitlines()]
    folder = request.getfixturevalue("shared_data")
    with gzip.open(folder / "verifier_adversarial.jsonl.gz", "rt") as lines:
        return [json.loads(line) for line in lines]


def test_one_batch_of_all_of_them_with_good_ones_between(adversarial):
    completions = [text for index, row in enumerate(adversarial) for text in (row["completion"], GOOD[index % 4])]
    parent = psutil.Process()
    with MathVerifier(workers=WORKERS, deadline=DEADLINE) as verifier:
        verifier.verify(GOOD, [r"\frac{1}{2}"] * 4)
        before, start = parent.memory_info().rss, time.perf_counter()
        verdicts = verifier.verify(completions, [r"\frac{1}{2}"] * len(completions))
        seconds = time.perf_counter() - start
        grown = parent.memory_info().rss - before
        workers = [child.memory_info().rss for child in parent.children(recursive=True)]
    assert {verdict.status for verdict in verdicts[1::2]} == {"correct"}
    accepted = {row["id"] for row, verdict in zip(adversarial, verdicts[::2], strict=True) if verdict.reward}
    assert accepted <= ALSO_RIGHT
    hung = sum(verdict.status == "timeout" for verdict in verdicts)
    assert hung < 20  # nearly all are refused before they can hang
    assert seconds < DEADLINE * hung / WORKERS + 10
    assert grown < 64 * 2**20 and max(workers) < GIB


def test_the_same_off_the_main_thread_and_against_other_golds(adversarial):
    found = {}
    some = adversarial[::8]

    def work(gold):
        found[gold] = verifier.verify([row["completion"] for row in some], [gold] * len(some))

    with MathVerifier(workers=WORKERS, deadline=DEADLINE) as verifier:
        threads = [threading.Thread(target=work, args=(gold,)) for gold in ("17", "x+1", "(1,2)", r"\text{Yes}")]
        [thread.start() for thread in threads]
        [thread.join(timeout=120) for thread in threads]
    assert [sum(verdict.reward or 0 for verdict in verdicts) for verdicts in found.values()] == [0, 0, 0, 0]


def test_what_is_too_large_is_refused_at_once():
    towers = [r"\boxed{9^{9^{9^{9}}}}", r"\boxed{10000000!}", r"\boxed{((9!)!)!}", r"\boxed{2^{2^{2^{2^{2^{2}}}}}}"]
    with MathVerifier(workers=1, deadline=30.0) as verifier:
        verdicts = verifier.verify(towers, ["17"] * 4)
    assert all(verdict.reward == 0.0 and verdict.seconds < 5 for verdict in verdicts)


def test_what_only_sympy_could_tell_times_out_and_pays_what_is_set():
    endless = r"\boxed{\prod_{n=2}^{\infty}(1+\frac{1}{n^2})}"
    with MathVerifier(workers=1, deadline=0.5, timeout_reward=-0.5) as verifier:
        first, again = verifier.verify([endless, endless], ["17"] * 2)
    assert (first.status, first.reward) == ("timeout", -0.5)
    assert again.status == "timeout"
