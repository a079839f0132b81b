"""One call of a judge: collects the questions, asks them, and combines the answers."""

import math
import time
from collections.abc import Iterable
from typing import Any

from rlhf_prm.generation.endpoint import EndpointGenerator, run_to_end
from rlhf_prm.generation.requests import unit_seed
from rlhf_prm.generation.tasks import Rejection, Task
from rlhf_prm.judges.budget import OVER_BUDGET
from rlhf_prm.judges.drive import drive
from rlhf_prm.judges.readers import Reading
from rlhf_prm.judges.rows import judged_row
from rlhf_prm.judges.votes import step_shares

Solution = tuple[str, tuple[str, ...]]  # a problem and the steps of a solution, or of its beginning
Ballot = tuple[Solution, int]  # the solution that is voted on, and the number of the vote


class Hearing:
    """All questions about the solutions of one call.

    Args:
        judge: a ``JudgeScorer``; its cache, meter, stats and rows are used.
        solutions: in their order, with duplicates; one without steps is not asked about.
    """

    def __init__(self, judge: Any, solutions: list[Solution]) -> None:
        self.judge, self.solutions, self.keeps = judge, solutions, judge.rows is not None and judge.learns()
        self.distinct = [solution for solution in dict.fromkeys(solutions) if solution[1]]
        # First votes come before second ones, so that a small budget costs votes before it costs whole rollouts.
        self.ballots = dict.fromkeys(
            (unit, vote) for vote in range(judge.votes) for solution in self.distinct for unit in self._units(solution)
        )
        known = {ballot: judge.cache.get(ballot) for ballot in self.ballots}
        self.known = {ballot: reading for ballot, reading in known.items() if reading is not None}
        self.found: dict[Ballot, Reading] = dict(self.known)
        self.refused: set[Ballot] = set()
        self._open = {solution: self._ballots_of(solution) - self.known.keys() for solution in self.distinct}
        self._askers: dict[Ballot, list[Solution]] = {}
        for solution, ballots in self._open.items():
            for ballot in ballots:
                self._askers.setdefault(ballot, []).append(solution)
        asked = sum(len(self._units(solution)) for solution in solutions if solution[1]) * judge.votes
        judge.stats.judge_duplicates += asked - len(self.ballots)
        judge.stats.judge_cache_hits += len(self.known)

    def run(self) -> None:
        """Ask the questions whose answers are not known; it runs in the background.

        Raises:
            EndpointError: no host can be used, or all are gone. Earlier answers are kept.
        """
        judge, begun = self.judge, time.monotonic()
        spent = _Spent(judge)
        try:
            for level in self._levels():
                drive(self._tasks(level), judge.generator, self._finished, judge.meter.seconds_left())
            if self.refused and isinstance(judge.generator, EndpointGenerator):
                run_to_end(judge.generator.ping)  # raises if the hosts are gone, rather than this question refused
        finally:
            judge.stats.judge_seconds += time.monotonic() - begun
            judge.stats.judge_over_budget += len(self.ballots.keys() - self.found.keys() - self.refused)
            spent.add_growth_to(judge.stats)
            for solution, ballots in self._open.items():
                if ballots:  # complete ones were written when their last vote came
                    self._keep(solution)

    def scores(self) -> list[list[float]]:
        """p_k of every solution, in their order; call it after ``run``."""
        stats, shares = self.judge.stats, {}
        for solution in self.distinct:
            votes = [vote for vote in self._votes(solution) if vote is not None]
            row = shares[solution] = step_shares(votes, len(solution[1]), self.judge.behind_error)
            missing = sum(map(math.isnan, row))
            if votes and self.judge.reader.scope == "solution":
                stats.judge_steps_left_out += missing
            else:
                stats.judge_unscored_steps += missing
        return [list(shares.get(solution, [])) for solution in self.solutions]

    def _units(self, solution: Solution) -> list[Solution]:
        """The units that a vote on a solution asks about: the whole solution, or every prefix."""
        if self.judge.reader.scope == "solution":
            return [solution]
        problem, steps = solution
        return [(problem, steps[: k + 1]) for k in range(len(steps))]

    def _ballots_of(self, solution: Solution) -> set[Ballot]:
        return {(unit, vote) for vote in range(self.judge.votes) for unit in self._units(solution)}

    def _levels(self) -> Iterable[list[Ballot]]:
        """Groups of independent questions; in a dialogue those about step k come after those about k − 1."""
        left = [ballot for ballot in self.ballots if ballot not in self.found]
        if self.judge.reader.scope != "dialogue":
            return [left] if left else []
        lengths = sorted({len(steps) for (_, steps), _ in left})
        return [[ballot for ballot in left if len(ballot[0][1]) == length] for length in lengths]

    def _tasks(self, ballots: list[Ballot]) -> Iterable[tuple[Ballot, Task]]:
        judge = self.judge
        for ballot in ballots:
            (problem, steps), vote = ballot
            before: list[str] = []
            if judge.reader.scope == "dialogue":
                earlier = [self.found.get(((problem, steps[:k]), vote)) for k in range(1, len(steps))]
                if None in earlier:  # the question before was refused or over budget
                    continue
                before = [reading.text for reading in earlier]
            seed = unit_seed(judge.seed, "judge", problem, *steps, vote)
            yield ballot, judge.meter.metered(judge.reader.ask(problem, steps, seed, before))

    def _finished(self, ballot: Ballot, result: Any) -> None:
        stats = self.judge.stats
        if result is OVER_BUDGET:
            return
        stats.judge_votes += 1
        if isinstance(result, Rejection):
            self.refused.add(ballot)
            stats.judge_failed += 1
            return
        stats.judge_unreadable += result.scores is None
        self.found[ballot] = result
        self.judge.cache.put(ballot, result)
        for solution in self._askers.get(ballot, ()):
            self._open[solution].discard(ballot)
            if not self._open[solution]:
                self._keep(solution)

    def _votes(self, solution: Solution) -> list[list[float] | None]:
        """Each vote's scores of the steps; None = it has none."""
        units, votes = self._units(solution), []
        for vote in range(self.judge.votes):
            readings = [self.found.get((unit, vote)) for unit in units]
            parts = [None if reading is None else reading.scores for reading in readings]
            if self.judge.reader.scope == "solution":
                votes.append(parts[0])
                continue
            row = [math.nan if part is None else part[-1] for part in parts]
            votes.append(None if all(map(math.isnan, row)) else row)
        return votes

    def _keep(self, solution: Solution) -> None:
        """Write the row of a solution if this call has asked about it."""
        if not self.keeps or self.found.keys().isdisjoint(self._ballots_of(solution) - self.known.keys()):
            return
        row = judged_row(*solution, self._votes(solution), f"judge:{self.judge.name}")
        if row is not None:
            self.judge.rows.append(row)


class _Spent:
    """The counts of a judge's meter and hosts when a call began."""

    def __init__(self, judge: Any) -> None:
        self.judge, self.before = judge, self._now(judge)

    @staticmethod
    def _now(judge: Any) -> dict[str, float]:
        prompt, completion = judge.meter.tokens()
        usage = getattr(judge.generator, "usage", None)
        return {
            "judge_calls": judge.meter.calls,
            "judge_prompt_tokens": prompt,
            "judge_completion_tokens": completion,
            "judge_cost": judge.meter.cost(),
            "judge_retries": sum(usage.failures.values()) if usage is not None else 0,
        }

    def add_growth_to(self, stats: Any) -> None:
        """Add the difference since then."""
        for name, value in self._now(self.judge).items():
            setattr(stats, name, getattr(stats, name) + value - self.before[name])
