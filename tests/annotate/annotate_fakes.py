"""Generators and verifiers whose every answer is known beforehand."""

import re

from reward.verifier import Verdict
from rlhf_prm.generation.requests import GenerationError


class ScriptedGenerator:
    """Answers from ``script``: prompt → continuations; remembers every call as (prompts, n, seeds)."""

    def __init__(self, script):
        self.script, self.calls = script, []

    def generate(self, prompts, n, *, seed=None, stop=None):
        self.calls.append((list(prompts), n, seed))
        answers = []
        for prompt in prompts:
            key = prompt if isinstance(prompt, str) else prompt[-1]["content"]
            texts = self.script(key) if callable(self.script) else self.script[key]
            if texts is None:
                raise GenerationError("too long")
            answers.append(texts[:n])
        return answers


class BoxVerifier:
    """Correct when the last box holds the gold answer; a gold "?" cannot be read."""

    def __init__(self):
        self.calls = 0

    def verify(self, completions, solutions):
        self.calls += 1
        verdicts = []
        for text, gold in zip(completions, solutions, strict=True):
            boxes = re.findall(r"\[(.*?)\]", text)
            status = "bad_gold" if gold == "?" else "correct" if boxes and boxes[-1] == gold else "incorrect"
            reward = None if gold == "?" else float(status == "correct")
            verdicts.append(Verdict(reward=reward, status=status, answer=None, seconds=0.0))
        return verdicts
