"""Shows the progress of a long command: a bar on a terminal, occasional lines in a log."""

import sys
import time
from collections.abc import Iterator
from typing import Any

LOGGED_EVERY = 30.0  # seconds between the lines of a log


class Bar:
    """Counts what is done; a tqdm bar on a terminal, else a line on stderr every ``LOGGED_EVERY`` seconds.

    Args:
        total: the number of units to do.
        what: the text before the numbers.
        unit: what is counted.
    """

    def __init__(self, total: int, what: str, unit: str = "rollout"):
        self.total, self.what, self.unit = total, what, unit
        self.done = self.known = 0
        self.notes: dict[str, Any] = {}
        self.started = self.logged = time.monotonic()
        self.bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=total, desc=what, unit=f" {unit}", mininterval=0.5, dynamic_ncols=True)

    def add(self, count: int = 1, **notes: Any) -> None:
        """``count`` more are done; ``notes`` are shown beside the numbers."""
        self.done += count
        self.notes |= notes
        if self.bar is not None:
            self.bar.set_postfix(self.notes, refresh=False)
            self.bar.update(count)
        elif time.monotonic() - self.logged >= LOGGED_EVERY:
            self.logged = time.monotonic()
            print(self.line(), file=sys.stderr, flush=True)

    def skip(self, count: int = 1) -> None:
        """Count ``count`` units that were done before; they do not affect the rate."""
        self.known += count
        if self.bar is not None:
            self.bar.initial += count
            self.bar.n += count

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def line(self) -> str:
        """The numbers as text, with the time that is left at the rate so far."""
        rest = self.total - self.known - self.done
        left = f", {self.elapsed / self.done * rest:.0f} s left" if self.done else ""
        notes = "".join(f", {name} {value}" for name, value in self.notes.items())
        done = f"{self.known + self.done} of {self.total} {self.unit}s"
        return f"{self.what}: {done} in {self.elapsed:.0f} s{left}{notes}"

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self.bar is not None:
            self.bar.close()

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class WatchedScorer:
    """A ``StepScorer`` whose calls are cut into parts, with a ``Bar`` over the rollouts of each call.

    Scores do not depend on what else is in a call, so they are the scorer's own.

    Args:
        scorer: the scorer.
        what: in front of the bar's numbers.
        part: rollouts per call of the scorer, more if one problem has more in a row: the rollouts of a
            problem stay together, so that their prompt can be shared.
    """

    def __init__(self, scorer: Any, what: str, part: int = 256):
        self.scorer, self.what, self.part = scorer, what, part

    @property
    def target(self) -> str:
        """As the scorer's own: "steps", or "outcome" for an outcome reward model."""
        return getattr(self.scorer, "target", "steps")

    def score(self, problems: list[str], steps: list[list[str]]) -> list[list[float]]:
        """See ``StepScorer.score``."""
        if len(problems) != len(steps):
            raise ValueError(f"got {len(problems)} problems and {len(steps)} lists of steps: expected one list each")
        scores: list[list[float]] = []
        with Bar(len(problems), self.what) as bar:
            for start, end in parts(problems, self.part):
                scores += self.scorer.score(problems[start:end], steps[start:end])
                bar.add(end - start)
        return scores


def parts(problems: list[str], size: int) -> Iterator[tuple[int, int]]:
    """(start, end) of stretches of at least ``size`` entries, the last one excepted, that cut no run of equal ones."""
    start = 0
    while start < len(problems):
        end = min(start + size, len(problems))
        while end < len(problems) and problems[end] == problems[end - 1]:
            end += 1
        yield start, end
        start = end
