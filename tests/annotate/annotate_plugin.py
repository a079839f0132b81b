"""A generator and a verifier to plug in by dotted path: every text follows from (prompt, seed) alone.

With ``ANNOTATE_CALLS`` set, the generator appends the seed of every call to that file and takes a millisecond for each.
"""

import os
import random
import re
import signal
import time

from reward.verifier import Verdict


def texts_of(prompt, n, seed):
    rng = random.Random(f"{prompt}{seed}")
    if not isinstance(prompt, str):
        return [judgement(prompt[-1]["content"], rng) for _ in range(n)]
    return [steps(prompt, rng) for _ in range(n)]


def steps(prompt, rng):
    left = max(0, 4 - prompt.count("step"))
    return "\n\n".join([*(f"step {rng.randrange(100)}" for _ in range(left)), f"so \\boxed{{{rng.choice('778')}}}"])


def judgement(prompt, rng):
    count = len(re.findall(r"</paragraph_\d+>", prompt))
    if rng.random() < 0.2:
        return "I would rather not say."
    error = rng.choice([None, None, *range(count)])
    looked_at = count if error is None else error + 1
    analyses = "".join(f"<analysis_{i}>x</analysis_{i}>" for i in range(1, looked_at + 1))
    return f"{analyses}<conclusion>{'Correct' if error is None else 'Incorrect'}</conclusion>"


class SeededGenerator:
    def __init__(self, config, concurrency):
        self.calls_file = os.environ.get("ANNOTATE_CALLS")

    def generate(self, prompts, n, *, seed=None, stop=None):
        return [self._one(prompt, n, row_seed) for prompt, row_seed in zip(prompts, seed, strict=True)]

    def _one(self, prompt, n, seed):
        if self.calls_file:
            with open(self.calls_file, "a") as calls:
                calls.write(f"{seed}\n")
            time.sleep(0.001)
        return texts_of(prompt, n, seed)


class LastBoxVerifier:
    def verify(self, completions, solutions):
        verdicts = []
        for text, gold in zip(completions, solutions, strict=True):
            boxes = re.findall(r"\\boxed\{(.*?)\}", text)
            right = bool(boxes) and boxes[-1] == gold
            verdicts.append(Verdict(float(right), "correct" if right else "incorrect", None, 0.0))
        return verdicts


class SlowGenerator(SeededGenerator):
    """Takes a moment for each call. With ``ANNOTATE_PIDS`` set it tells its process there when it is made; with
    ``ANNOTATE_DIES_AFTER`` set its process is killed by so many calls."""

    def __init__(self, config, concurrency):
        super().__init__(config, concurrency)
        self.calls_left = int(os.environ.get("ANNOTATE_DIES_AFTER", -1))
        if path := os.environ.get("ANNOTATE_PIDS"):
            with open(path, "a") as pids:
                pids.write(f"{os.getpid()}\n")

    def _one(self, prompt, n, seed):
        if self.calls_left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.calls_left -= 1
        time.sleep(0.02)
        return super()._one(prompt, n, seed)
