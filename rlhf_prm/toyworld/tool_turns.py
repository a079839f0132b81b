"""The syntax of calls and results in the tool world, and the parts of a rollout with them.

Ask: 7 Add 3 ?                                   (the policy; the mark ends its turn)
 Tool: 0                                         (the calculator)

7 Add 3 = 0                                      (the policy goes on)
"""

import re
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from rlhf_prm.toyworld.calculator import ERROR, TIMEOUT
from rlhf_prm.toyworld.checker import process_correct, step_labels
from rlhf_prm.toyworld.problems import SEPARATOR, ChainProblem
from rlhf_prm.toyworld.verifier import final_answer

ASK, CALL, TOOL = "Ask: ", " ?", " Tool: "
# A result is one token, mark and answer together, so that a tiny policy soon learns to copy it.
TOOL_WORDS = (ASK, CALL, TOOL, *(f"{TOOL}{answer}" for answer in (*range(10), ERROR, TIMEOUT)))

_QUESTION = re.compile(rf"{re.escape(ASK)}((?:(?!{re.escape(ASK)}).)*){re.escape(CALL)}$", re.DOTALL)


@runtime_checkable
class Environment(Protocol):
    """The environment of the tool world; ``Calculator`` is one."""

    def calculate(self, question: str) -> str: ...

    def turn_rewards(self) -> list[float]: ...

    def state_keys(self) -> list[str]: ...


def called(turn: str) -> str:
    """The question of a turn that ends with a call: the text after its last "Ask:", or the whole turn."""
    found = _QUESTION.search(turn)
    return found[1] if found else turn.removesuffix(CALL)


def tool_text(answer: str) -> str:
    """The calculator's answer as it is written into the rollout."""
    return f"{TOOL}{answer}{SEPARATOR}"


@dataclass(frozen=True)
class ToolRollout:
    """A rollout: its tokens, which of them the policy wrote, its turns, and the environment it was in.

    Args:
        ids, written: the completion's tokens; True = the policy's.
        turns: the policy's texts; all but perhaps the last end with a call.
        turn_lengths: the policy's tokens in each turn.
    """

    ids: list[int]
    written: list[bool]
    turns: list[str]
    turn_lengths: list[int]
    environment: Environment

    @property
    def answer_turn(self) -> str:
        """The text that the verifier reads: what the policy wrote after the last tool result, calls left out."""
        return "" if self.turns[-1].endswith(CALL) else self.turns[-1].partition(ASK)[0]

    @property
    def calls(self) -> int:
        return len(self.environment.turn_rewards())


def lines(turn: str) -> list[str]:
    """The lines of a turn without its question."""
    return [line for line in turn.split(SEPARATOR) if line.strip() and not line.strip().startswith(ASK.strip())]


def verdict(problem: ChainProblem, rollout: ToolRollout) -> float:
    """1 = the answer in the policy's last turn is right."""
    return float(final_answer(rollout.answer_turn) == problem.solution)


def exact_turn_scores(problem: ChainProblem, rollout: ToolRollout) -> list[float]:
    """1 for a turn whose lines are all right so far and whose question, if any, asks the operation that comes next."""
    scores: list[float] = []
    so_far: list[str] = []
    right = True
    rewards = rollout.environment.turn_rewards()
    for index, turn in enumerate(rollout.turns):
        so_far += lines(turn)
        right = right and all(step_labels(problem, so_far))
        asked = rewards[index] if index < len(rewards) else None
        scores.append(float(right and asked != 0.0 and (asked is not None or process_correct(problem, so_far))))
    return scores
