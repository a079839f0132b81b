"""The imperfect demonstrator of the tool world, which sometimes asks a calculator. Its policy learns from it."""

import random

from rlhf_prm.toyworld.calculator import ERROR, TIMEOUT
from rlhf_prm.toyworld.demonstrator import SLIP, Demonstrator
from rlhf_prm.toyworld.problems import OPERANDS, OPERATIONS, SEPARATOR, ChainProblem, answer_line, step_line
from rlhf_prm.toyworld.tool_turns import ASK, CALL, Environment, tool_text

ASKS = 0.5  # per operation, whether it knows the fact or not
ASKS_NONSENSE = 0.05  # of its questions: about a fact that is not the one it needs
IGNORES = 0.1  # of the answers: it writes its own belief instead
STUFFS = 0.02  # per operation: it puts the answer so far into a call, which is useless


class ToolDemonstrator(Demonstrator):
    """Writes solutions with calls; whether it asks does not depend on what it knows.

    A policy that imitates it must therefore learn when a call is worth its price, and not to put answers into calls.
    """

    def __init__(self, seed: int, asks: float = ASKS) -> None:
        super().__init__(seed)
        self.asks = asks

    def conversation(
        self, problem: ChainProblem, environment: Environment, rng: random.Random
    ) -> list[tuple[str, bool]]:
        """The texts of a demonstration in order, with True for those that it writes and False for the tool's."""
        value, texts, own = problem.start, [], ""
        for operation, operand in problem.chain:
            if rng.random() < SLIP:
                if rng.random() < 0.5:
                    break
                continue
            told = None
            for question in self._questions(value, operation, operand, rng):
                texts.append((f"{own}{ASK}{question}{CALL}", True))
                told, own = environment.calculate(question), ""
                texts.append((tool_text(told), False))
            shown = self._result((value, operation, operand), rng)
            if told not in (None, ERROR, TIMEOUT) and rng.random() >= IGNORES:
                shown = int(str(told))
            own += step_line(value, operation, operand, shown) + SEPARATOR
            value = shown
        return [*texts, (own + answer_line(value), True)]

    def _questions(self, value: int, operation: str, operand: int, rng: random.Random) -> list[str]:
        if rng.random() < STUFFS:
            return [answer_line(value)]
        if rng.random() >= self.asks:
            return []
        if rng.random() < ASKS_NONSENSE:
            return [f"{rng.randrange(10)} {rng.choice(OPERATIONS)} {rng.choice(OPERANDS)}"]
        return [f"{value} {operation} {operand}"]
