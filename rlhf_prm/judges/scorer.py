"""JudgeScorer: an LLM judge or a generative PRM as a step scorer, which works in the background."""

import hashlib
import json
import math
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from rlhf_prm.background import Background
from rlhf_prm.generation import Generator
from rlhf_prm.judges.budget import Budget, Meter, Prices
from rlhf_prm.judges.cache import VerdictCache
from rlhf_prm.judges.hearing import Hearing
from rlhf_prm.judges.readers import SCOPES, Reader, Reading
from rlhf_prm.judges.rows import JudgedRows
from rlhf_prm.judges.stats import JudgeStats

BEHIND_ERROR = ("unscored", "wrong")


class PendingScores:
    """Scores that are being computed."""

    def __init__(self, job: Future, collect: Callable[[], list[list[float]]]) -> None:
        self._job, self._collect = job, collect

    def done(self) -> bool:
        """Whether ``result`` returns at once."""
        return self._job.done()

    def result(self) -> list[list[float]]:
        """The scores; waits for the last answer.

        Raises:
            EndpointError: no host of the judge can be used.
        """
        self._job.result()
        return self._collect()


class JudgeScorer:
    """A ``StepScorer`` that asks a judge: p_k is the share of its votes in which step k is right given its prefix.

    Questions run in the background, concurrently if the generator is an endpoint; ``submit`` returns at once. Equal
    rollouts, and for judges asked step by step equal prefixes, are asked about once per vote; earlier answers are
    cached. A step without a vote has NaN and is counted (``JudgeStats``). Votes depend on the seed, the
    problem and the steps only, if the generator is deterministic for a seed.

    Args:
        generator: the judge's model.
        reader: asks the questions and reads the answers.
        name: the judge's, as the source of its labels.
        votes: how often it is asked about each solution.
        seed: of all sampling.
        behind_error: how a vote counts for steps after the first error it names: ``"unscored"`` or ``"wrong"``.
        budget: per update; see ``Budget`` for what happens when it is spent.
        prices: per million tokens.
        cache: number of verdicts to keep.
        in_evaluation: whether to ask in held-out evaluations during training too, where scores are only logged.
        keeps_rows: whether to append verdicts on training rollouts to ``judged.jsonl`` in the folder of the attached
            run, and read existing ones from it. Held-out solutions are not written: a PRM may be measured on them.

    Attributes:
        costly: True: a run that learns from outcomes alone does without it.

    Raises:
        ValueError: a value is outside its range.
    """

    costly = True

    def __init__(
        self,
        generator: Generator,
        reader: Reader,
        *,
        name: str = "judge",
        votes: int = 1,
        seed: int = 0,
        behind_error: str = "unscored",
        budget: Budget | None = None,
        prices: Prices | None = None,
        cache: int = 100_000,
        in_evaluation: bool = False,
        keeps_rows: bool = True,
    ) -> None:
        if isinstance(votes, bool) or not isinstance(votes, int) or votes < 1:
            raise ValueError(f"votes: got {votes!r}, expected a whole number of at least 1")
        if behind_error not in BEHIND_ERROR:
            raise ValueError(f"behind_error: got {behind_error!r}, expected one of {', '.join(BEHIND_ERROR)}")
        if reader.scope not in SCOPES:
            raise ValueError(f"reader: got scope {reader.scope!r}, expected one of {', '.join(SCOPES)}")
        self.generator, self.reader, self.name = generator, reader, name
        self.votes, self.seed, self.behind_error = votes, seed, behind_error
        self.in_evaluation, self.keeps_rows = in_evaluation, keeps_rows
        self.budget = budget or Budget()
        self.meter = Meter(generator, self.budget, prices)
        self.cache = VerdictCache(cache)
        self.stats = JudgeStats()
        self.rows: JudgedRows | None = None
        self._background = Background("judge")
        self._update: Callable[[], Any] = lambda: None
        self._asking: Callable[[], bool] = lambda: True
        self.learns: Callable[[], bool] = lambda: True  # whether the policy is trained on the present rollouts

    def share_budget(self) -> None:
        """From now on one budget holds for all calls, as for those of an update."""
        self._update = lambda: 0

    def attach(self, trainer: Any) -> None:
        """Use the trainer's updates and ranks for the budget, and its folder for ``judged.jsonl``."""
        self._update = lambda: trainer.state.global_step if trainer.is_in_train else None
        self._asking = lambda: self.in_evaluation or trainer.model.training or not trainer.is_in_train
        self.learns = lambda: trainer.is_in_train and trainer.model.training
        self.meter.budget = self.budget.share(trainer.accelerator.num_processes)
        if self.keeps_rows and self.reader.verdicts:
            self.rows = JudgedRows(trainer.args.output_dir, self.settings())
            self._take_back(self.rows)

    def detach(self) -> None:
        """Release the trainer. The judge still answers, but writes no rows and has no budget per update."""
        self.meter.budget = Budget()
        self._update, self._asking, self.learns = lambda: None, lambda: True, lambda: False

    def settings(self) -> str:
        """16 hexadecimal digits that change with every setting that an answer depends on."""
        sampling = getattr(self.generator, "sampling", None) or {
            name: getattr(self.generator, name) for name in ("temperature", "top_p") if hasattr(self.generator, name)
        }
        about = {"judge": self.name, "seed": self.seed, **self.reader.settings, "sampling": sampling}
        return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def score(self, problems: list[str], steps: list[list[str]]) -> list[list[float]]:
        """See ``StepScorer.score``."""
        return self.submit(problems, steps).result()

    def submit(self, problems: list[str], steps: list[list[str]]) -> PendingScores:
        """Start asking; ``result()`` of the returned object gives the scores.

        Raises:
            ValueError: ``problems`` and ``steps`` differ in length.
        """
        if len(problems) != len(steps):
            raise ValueError(f"got {len(problems)} problems and {len(steps)} lists of steps: expected one list each")
        solutions = [(problem, tuple(row)) for problem, row in zip(problems, steps, strict=True)]
        if not self._asking():
            nothing: Future = Future()
            nothing.set_result(None)
            return PendingScores(nothing, lambda: [[math.nan] * len(row) for row in steps])
        hearing = Hearing(self, solutions)
        self.meter.begin(self._update())
        return PendingScores(self._background.start(hearing.run), hearing.scores)

    def _take_back(self, rows: JudgedRows) -> None:
        """Take over the verdicts of an earlier part of the run."""
        if self.reader.scope == "dialogue":  # later questions quote earlier answers, which the rows do not have
            return
        for problem, steps, votes in rows.votes():
            for index, vote in enumerate(votes):
                if vote is None or len(vote) != len(steps):
                    continue
                if self.reader.scope == "solution":
                    self.cache.put(((problem, steps), index), Reading(vote))
                    continue
                for k, score in enumerate(vote):
                    if not math.isnan(score):
                        self.cache.put(((problem, steps[: k + 1]), index), Reading([score]))
