"""The rows of the stages, in the order of the input: problems to sample from, and solutions to label."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rlhf_prm.annotate.config import AnnotateConfig
from rlhf_prm.annotate.store import Shards
from rlhf_prm.columns import gold_of, problem_of, steps_of, text_of_steps
from rlhf_prm.step_data import read_records


@dataclass(frozen=True)
class ProblemRow:
    """A problem and its gold answer; ``number`` counts the rows of the input from 0."""

    id: str
    number: int
    prompt: str
    solution: str


@dataclass(frozen=True)
class Sampled:
    """A solution as it was sampled: its policy, its text, and the token ids of its prompt and of itself."""

    policy: str
    text: str
    prompt_ids: list[int]
    ids: list[int]


@dataclass(frozen=True)
class Solution:
    """One solution of a problem, in steps.

    ``text`` is the text they were cut from, None if they came as a list; ``sampled`` is given if its tokens are known.
    """

    id: str
    number: int
    prompt: str
    solution: str
    steps: list[str]
    text: str | None = None
    sampled: Sampled | None = None

    @property
    def policy(self) -> int:
        """The number of the policy that it was sampled from; 0 for a solution that was given."""
        parts = self.id.split(".")
        return int(parts[1]) if len(parts) == 3 else 0


@dataclass(frozen=True)
class BadRow:
    """A row of the input that cannot be used."""

    id: str
    number: int
    reason: str


def problems(config: AnnotateConfig, policy: int) -> Iterator[ProblemRow | BadRow]:
    """The rows of ``config.problems``, named for one policy."""
    for number, where, record in _records(config, config.problems):
        row_id = f"{number:07d}.{policy}"
        try:
            prompt, gold = _prompt_and_gold(config, record)
            if not gold:
                raise ValueError("no gold answer")
            yield ProblemRow(row_id, number, prompt, gold)
        except ValueError as error:
            yield BadRow(row_id, number, f"{where}: {error}")


def given_solutions(config: AnnotateConfig) -> Iterator[Solution | BadRow]:
    """The rows of ``config.solutions``; a judge needs no gold answer, so it may be missing there."""
    for number, where, record in _records(config, config.solutions):
        row_id = f"{number:07d}"
        try:
            prompt, gold = _prompt_and_gold(config, record)
            yield Solution(row_id, number, prompt, gold, steps_of(record, config.splitter), text_of_steps(record))
        except ValueError as error:
            yield BadRow(row_id, number, f"{where}: {error}")


def sampled_solutions(config: AnnotateConfig, samples: list[Shards]) -> Iterator[Solution]:
    """The responses in the sample folders to the first ``config.limit`` problems; those to one problem are adjacent."""
    shard, found = 0, True
    while found:
        records = [record for store in samples for record in store.records(shard)]
        records.sort(key=lambda record: record["id"])
        for record in records:
            number = int(record["id"].split(".")[0])
            if config.limit is not None and number >= config.limit:
                return
            for i, response in enumerate(record["responses"]):
                steps = config.splitter.split(response) if response.strip() else []
                row_id, sampled = f"{record['id']}.{i}", _sampled(record, i)
                yield Solution(row_id, number, record["prompt"], record["solution"], steps, response, sampled)
        shard += 1
        found = shard <= max(store.last_shard() for store in samples)


def _sampled(record: dict[str, Any], response: int) -> Sampled | None:
    if "response_ids" not in record:
        return None
    text, ids = record["responses"][response], record["response_ids"][response]
    return Sampled(record["policy"], text, record["prompt_ids"], ids)


def _records(config: AnnotateConfig, path: str) -> Iterator[tuple[int, str, dict[str, Any] | ValueError]]:
    for number, (where, record) in enumerate(read_records(path)):
        if config.limit is not None and number >= config.limit:
            return
        yield number, where, record


def _prompt_and_gold(config: AnnotateConfig, record: dict[str, Any] | ValueError) -> tuple[str, str]:
    if isinstance(record, ValueError):
        raise record
    return problem_of(record, config.problem_column), gold_of(record, config.solution_column) or ""
