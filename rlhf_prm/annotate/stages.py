"""The stages of the pipeline: the task that each one runs for a row, and when the row is done."""

import dataclasses
from collections.abc import Callable
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

from rlhf_prm.annotate.config import AnnotateConfig
from rlhf_prm.annotate.items import ProblemRow, Solution
from rlhf_prm.annotate.judge import judge_task
from rlhf_prm.annotate.monte_carlo import (
    StepEstimate,
    is_complete,
    labels_from_estimates,
    monte_carlo_task,
    prefixes_of,
)
from rlhf_prm.annotate.sample import sample_task
from rlhf_prm.annotate.store import file_hash
from rlhf_prm.generation.config import GeneratorConfig
from rlhf_prm.generation.prefixes import TokenPrefixes
from rlhf_prm.generation.requests import Sample
from rlhf_prm.generation.tasks import RejectedRow, Rejection, Task
from rlhf_prm.judges.votes import Vote, labels_from_votes
from rlhf_prm.step_data import StepLabels

Records = list[dict[str, Any]]


@runtime_checkable
class Stage(Protocol):
    """One kind of work on rows. ``name`` is its folder, ``model`` its model, ``unit`` what it counts."""

    name: str
    unit: str
    model: GeneratorConfig
    settings: dict[str, Any]

    def task(self, row: Any, records: Records) -> Task:
        """The remaining work on a row of which these records are written."""
        ...

    def is_done(self, row: Any, records: Records) -> bool:
        """Whether the row is finished."""
        ...

    def result(self, row: Any, records: Records) -> Any:
        """The result of a finished row's records; a ``Rejection`` if they give none."""
        ...

    def kept_for_retry(self, records: Records) -> Records:
        """The records of a row set aside that are kept when it is tried again."""
        ...


class SampleStage:
    """``num_responses`` responses of one policy to every problem."""

    unit = "problem"

    def __init__(self, config: AnnotateConfig, policy: int):
        self.name, self.model, self.config = f"sample-{policy}", config.policies[policy], config
        self._template: Callable[[str], str] | None = None
        self.settings = {
            "problems": file_hash(config.problems),
            "columns": [config.problem_column, config.solution_column],
            "policy": self.model.results_depend_on(),
            "num_responses": config.num_responses,
            "seed": config.seed,
            "shard_size": config.shard_size,
        }

    def task(self, row: ProblemRow, records: Records) -> Task:
        self._template = self._template or self.model.prompt_template()
        about = {"prompt": row.prompt, "solution": row.solution, "policy": self.model.model}
        prompt = self._template(row.prompt)
        return sample_task(row.id, prompt, self.config.num_responses, self.config.seed, about)

    def is_done(self, row: ProblemRow, records: Records) -> bool:
        return bool(records)

    def result(self, row: ProblemRow, records: Records) -> Any:
        """The record."""
        return records[0]

    def kept_for_retry(self, records: Records) -> Records:
        return records


class MonteCarloStage:
    """Step estimates of every solution, or of one policy's solutions if each policy has its own completer."""

    unit = "solution"

    def __init__(self, config: AnnotateConfig, source: dict[str, Any], policy: int | None = None):
        if config.completer is None and not config.policies:
            raise ValueError("monte_carlo: expected a completer or a policy (--model) to continue the steps")
        self.name, self.policy = ("monte_carlo" if policy is None else f"monte_carlo-{policy}"), policy
        self.model = config.completer or config.policies[0] if policy is None else config.completers[policy]
        self.how, self.splitter = config.monte_carlo_settings, config.splitter
        self._template: Callable[[str], str] | None = None
        self._source, self._verifier, self._shard_size = source, config.verifier, config.shard_size

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The settings that the records depend on. It loads the tokenizer, so it is called only before writing."""
        return {
            **self._source,
            "completer": self.model.results_depend_on(),
            "monte_carlo": self.how.records_depend_on(),
            # An older version joined the steps by the separator; one in between called both of these "own text".
            "prefixes": "own text" if self._prefix_tokenizer is None else "token ids",
            "verifier": self._verifier,
            "shard_size": self._shard_size,
        }

    @cached_property
    def _prefix_tokenizer(self) -> Any | None:
        return self.model.prefix_tokenizer()

    def task(self, row: Solution, records: Records) -> Task:
        if self._template is None:
            self._template = self.model.prompt_template()
        prompt, known = self._template(row.prompt), self._estimates(records)
        prefixes = None
        if row.text is not None:
            prefixes = [row.text[:end] for _, end in self.splitter.spans(row.text)]
        tokens = self._tokens(row, prompt, prefixes)
        return monte_carlo_task(row.id, prompt, row.steps, row.solution, self.how, known, prefixes, tokens)

    def _tokens(self, row: Solution, prompt: str, prefixes: list[str] | None) -> TokenPrefixes | None:
        """The prefixes, from the sampled ids only if this model sampled them: another model may have other tokens."""
        if self._prefix_tokenizer is None:
            return None
        own = row.sampled is not None and row.sampled.policy == self.model.model
        sampled = Sample(row.sampled.text, row.sampled.ids, row.sampled.prompt_ids) if own else None
        return prefixes_of(self._prefix_tokenizer, prompt, row.steps, self.splitter, sampled, prefixes)

    def is_done(self, row: Solution, records: Records) -> bool:
        return bool(records) and is_complete(self._estimates(records), len(row.steps), self.how)

    def result(self, row: Solution, records: Records) -> StepLabels | Rejection:
        """What the records of a row that is done say."""
        return labels_from_estimates(self._estimates(records), self.how)

    def kept_for_retry(self, records: Records) -> Records:
        """All estimates: the failure came after them."""
        return records

    @staticmethod
    def _estimates(records: Records) -> list[StepEstimate]:
        return [StepEstimate(r["step"], r["hits"], r["n"], r["statuses"]) for r in records]


class JudgeStage:
    """A judge's votes on every solution."""

    name, unit = "judge", "solution"

    def __init__(self, config: AnnotateConfig, source: dict[str, Any]):
        if config.judge is None:
            raise ValueError("judge: expected a model that judges (judge: in the config, or --judge-model)")
        self.model, self.how = config.judge, config.judge_settings
        self.settings = {
            **source,
            "judge": {k: v for k, v in self.model.results_depend_on().items() if k not in ("template", "tokenizer")},
            "form": dataclasses.asdict(self.how),
            "shard_size": config.shard_size,
        }

    def task(self, row: Solution, records: Records) -> Task:
        return judge_task(row.id, row.prompt, row.steps, self.how, self._votes(records))

    def is_done(self, row: Solution, records: Records) -> bool:
        return len(records) >= self.how.votes

    def result(self, row: Solution, records: Records) -> StepLabels | Rejection:
        """What the records of a row that is done say."""
        try:
            return labels_from_votes(self._votes(records), len(row.steps))
        except RejectedRow as error:
            return Rejection(str(error))

    def kept_for_retry(self, records: Records) -> Records:
        """None if no answer could be parsed, so that a repaired judge is asked again. A tie is a result and is kept."""
        return records if any(record["first_error"] is not None for record in records) else []

    @staticmethod
    def _votes(records: Records) -> list[Vote]:
        return [Vote(r["vote"], r["first_error"], r["attempts"], r["unparseable"]) for r in records]
