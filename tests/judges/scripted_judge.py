"""Judges whose every answer is known beforehand: in this process, and behind a server that takes so many at a time."""

import re
import threading
import time

from tests.annotate.annotate_server import Server

STEP = re.compile(r"<paragraph_\d+>\n(.*?)\n</paragraph_\d+>", re.DOTALL)


def paper(first_error, num_steps):
    """An answer in the paper's form."""
    looked_at = num_steps if first_error < 0 else first_error + 1
    analyses = "".join(f"<analysis_{i}>x</analysis_{i}>" for i in range(1, looked_at + 1))
    return f"{analyses}<conclusion>{'Correct' if first_error < 0 else 'Incorrect'}</conclusion>"


def told(first_error):
    """An answer to a question in the paper's form, whatever it is."""
    return lambda question: paper(first_error, len(STEP.findall(question)))


def first_bad(question):
    """The first step that says "bad" is wrong."""
    steps = STEP.findall(question)
    return paper(next((i for i, step in enumerate(steps) if "bad" in step), -1), len(steps))


class Scripted:
    """A ``Generator``: the n-th question of a text gets the n-th of ``script(text)``'s answers; an exception is raised.

    ``asked`` holds (last message, seed) of every question.
    """

    def __init__(self, script):
        self.script, self.asked, self.counts = script, [], {}

    def generate(self, prompts, n, *, seed=None, stop=None):
        return [[self.answer(prompt, row_seed)] for prompt, row_seed in zip(prompts, seed, strict=True)]

    def answer(self, prompt, seed):
        text = prompt if isinstance(prompt, str) else prompt[-1]["content"]
        self.asked.append((text, seed))
        number = self.counts[text] = self.counts.get(text, -1) + 1
        answers = self.script(text)
        found = answers[min(number, len(answers) - 1)] if isinstance(answers, list) else answers
        if isinstance(found, Exception):
            raise found
        return found(text) if callable(found) else found


class JudgeServer(Server):
    """Answers ``at_once`` questions at a time, each after ``latency`` seconds, with ``answer_to(question, seed)``."""

    def __init__(self, *args, at_once=1000, answer_to=lambda question, seed: first_bad(question), **keywords):
        super().__init__(*args, **keywords)
        self.slots, self.answer_to = threading.Semaphore(at_once), answer_to
        self.slow, self.latency = self.latency, 0.0
        self.busy = self.most_busy = 0

    def answer(self, handler, body, fault):
        with self.slots:
            with self.lock:
                self.busy += 1
                self.most_busy = max(self.most_busy, self.busy)
            time.sleep(self.slow)
            with self.lock:
                self.busy -= 1
        super().answer(handler, body, fault)

    def texts(self, prompt, n, seed):
        return [self.answer_to(prompt[-1]["content"], seed) for _ in range(n)]
