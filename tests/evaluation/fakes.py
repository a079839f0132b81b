"""Scripted policies, PRMs and verifiers: what they say follows from the text."""

import re

from reward.verifier import Verdict


class RuleScorer:
    """Scores each step by a function of (problem, steps so far, this step)."""

    def __init__(self, rule):
        self.rule = rule

    def score(self, problems: list[str], steps: list[list[str]]) -> list[list[float]]:
        return [
            [float(self.rule(problem, row[:k], row[k])) for k in range(len(row))]
            for problem, row in zip(problems, steps, strict=True)
        ]


class BoxVerifier:
    """Right when the last box holds the gold; a gold of "?" cannot be read."""

    def verify(self, completions: list[str], solutions: list[str]) -> list[Verdict]:
        verdicts = []
        for completion, gold in zip(completions, solutions, strict=True):
            boxes = re.findall(r"\\boxed\{([^}]*)\}", completion)
            answer = boxes[-1] if boxes else None
            reward = None if gold == "?" else float(answer == gold)
            verdicts.append(Verdict(reward, "correct" if reward else "incorrect", answer, 0.0))
        return verdicts


class ScriptedGenerator:
    """Continues a prompt with whatever ``script(prompt, draw)`` says, cut at the first stop string."""

    def __init__(self, script):
        self.script, self.calls = script, 0

    def generate(self, prompts, n, *, seed=None, stop=None) -> list[list[str]]:
        self.calls += 1
        out = [[self.script(prompt, self.calls * 100 + draw) for draw in range(n)] for prompt in prompts]
        for text in stop or ():
            out = [[completion.partition(text)[0] for completion in row] for row in out]
        return out


def plugged(config, concurrency) -> ScriptedGenerator:
    """A backend by dotted path: whatever is asked, the answer is 1."""
    return ScriptedGenerator(lambda prompt, draw: "\\boxed{1}")
