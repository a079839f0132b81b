"""A progress bar with rate, time left, and failures so far."""

from typing import Any

from rlhf_prm.generation.endpoint import EndpointGenerator, Usage
from rlhf_prm.progress import Bar


class Progress:
    """Counts rows; those that an earlier run finished do not count towards the rate.

    Attributes:
        done: rows finished in this run or before.
        rejected: rows set aside in this run.
    """

    def __init__(self, stage: Any, total: int):
        self.bar = Bar(total, f"{stage.name} {stage.model.model}", stage.unit)
        self.usage: Usage | None = None
        self.done = self.rejected = 0

    def watch(self, generator: Any) -> None:
        """Show the endpoints' failures too."""
        if isinstance(generator, EndpointGenerator):
            self.usage = generator.usage

    def known_one(self, rejected: bool = False) -> None:
        """Count a row that was finished, or set aside, before this run."""
        self.done += not rejected
        self.bar.skip()

    def finished_one(self) -> None:
        """Count a row labelled now."""
        self.done += 1
        self._advance()

    def rejected_one(self) -> int:
        """Count a row set aside now; returns how many there are so far."""
        self.rejected += 1
        self._advance()
        return self.rejected

    def _advance(self) -> None:
        notes = {"set aside": self.rejected} if self.rejected else {}
        if self.usage is not None:
            notes |= {"calls": self.usage.answered, "repeated": self.usage.failures.total()}
            if self.bar.elapsed and self.usage.completion_tokens:
                notes["tokens/s"] = round(self.usage.completion_tokens / self.bar.elapsed)
        self.bar.add(1, **notes)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.close()
        if self.usage is not None and self.usage.failures:
            reasons = ", ".join(f"{count} × {reason}" for reason, count in self.usage.failures.most_common(8))
            print(f"{self.usage.attempts} attempts for {self.usage.answered} answers; repeated: {reasons}")
