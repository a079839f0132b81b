"""Which part of a reasoning model's completion the verifier and the scorer read, and which part earns credit."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from reward.verifier import Verdict, Verifier
from rlhf_prm.prm.parts import PartScorer
from rlhf_prm.rl.rollout_scoring import ScoredRollout
from rlhf_prm.thinking import Thinking, check_part


@dataclass(frozen=True)
class Reading:
    """The part that each one reads: "all", "thinking" or "answer".

    ``credit`` is the part whose tokens earn process credit; the other part has its outcome-only advantage.

    Raises:
        ValueError: a part is unknown, or thinking and answer are not distinguished (no ``thinking``).
    """

    thinking: Thinking | None = None
    prm: str = "all"
    verifier: str = "all"
    credit: str = "all"

    def __post_init__(self) -> None:
        for name in ("prm", "verifier", "credit"):
            which = getattr(self, name)
            check_part(which, f"{name}_reads")
            if which != "all" and self.thinking is None:
                raise ValueError(
                    f"{name}_reads: got {which!r} without think_tags; set them, mostly to ['<think>', '</think>']"
                )

    def refuse_turns(self) -> None:
        """Raise a ValueError if PRM or credit read a part only: in the first turn that thinks, the thinking would end.

        The verifier reads the last turn alone, which has its own thinking and answer.
        """
        for name in ("prm", "credit"):
            if getattr(self, name) != "all":
                raise ValueError(
                    f"{name}_reads: got {getattr(self, name)!r} for a policy with tools, an environment or a "
                    "rollout_func, expected 'all': thinking and answer are told apart once in a rollout, not in every "
                    "turn"
                )

    def sources(self, tokenizer: Any, scorer: Any, verifier: Verifier | None) -> tuple[Any, Verifier | None]:
        """Scorer and verifier, each shown only what it reads, for a policy with this tokenizer."""
        self.check_tokenizer(tokenizer)
        return self.of_scorer(scorer), self.of_verifier(verifier)

    def of_scorer(self, scorer: Any) -> Any:
        """The scorer, shown only what it reads."""
        if self.thinking is None or self.prm == "all" or scorer is None:
            return scorer
        return PartScorer(scorer, self.prm, self.thinking)

    def of_verifier(self, verifier: Verifier | None) -> Verifier | None:
        """The verifier, shown only what it reads."""
        if self.thinking is None or self.verifier == "all" or verifier is None:
            return verifier
        if getattr(verifier, "in_thought", None):
            raise ValueError(
                f"verifier_reads: got {self.verifier!r} beside a verifier with in_thought=True, expected one: "
                "the part it is shown has no tags in it"
            )
        return PartVerifier(verifier, self.verifier, self.thinking)

    def check_tokenizer(self, tokenizer: Any) -> None:
        """Raise a ValueError if the tags do not survive decoding, so that no part would ever be found."""
        if self.thinking is None:
            return
        for tag in (self.thinking.begin, self.thinking.end):
            ids = tokenizer(tag, add_special_tokens=False)["input_ids"]
            if tag not in tokenizer.decode(ids, skip_special_tokens=True):
                raise ValueError(
                    f"think_tags: {tag!r} is a special token of the policy's tokenizer, or not in its vocabulary, and "
                    "is lost when completions are decoded; add it as an ordinary token: "
                    f"tokenizer.add_tokens([{tag!r}], special_tokens=False)"
                )

    def credited(self, rows: list[ScoredRollout]) -> list[ScoredRollout]:
        """The rows, marked with the steps that earn process credit."""
        if self.thinking is None or self.credit == "all":
            return rows
        return [replace(row, credited=self.thinking.reads(row.steps, self.credit)) for row in rows]


def credited_steps(rows: list[ScoredRollout]) -> Bool[Tensor, "B K"] | None:
    """The steps that earn process credit, False in the padding; None = all."""
    marked = [row.credited for row in rows if row.credited is not None]
    if not marked:
        return None
    return pad_sequence([torch.tensor(one) for one in marked], batch_first=True)


class PartVerifier:
    """A verifier that reads one part of each completion, without the tags; it reads "" if there is no answer.

    Everything else is passed on to ``verifier``.
    """

    def __init__(self, verifier: Verifier, which: str, thinking: Thinking) -> None:
        self.verifier, self.which, self.thinking = verifier, which, thinking

    def verify(self, completions: list[str], solutions: list[str]) -> list[Verdict]:
        """See ``Verifier.verify``."""
        return self.verifier.verify(self._parts(completions), solutions)

    def __getattr__(self, name: str) -> Any:
        if name == "verifier":  # it is not set yet while this object is unpickled
            raise AttributeError(name)
        own = getattr(self.verifier, name)
        if name != "submit":
            return own
        return lambda completions, solutions: own(self._parts(completions), solutions)

    def _parts(self, completions: list[str]) -> list[str]:
        return [self.thinking.part(text, self.which) for text in completions]
