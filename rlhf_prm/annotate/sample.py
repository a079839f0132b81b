"""Solutions to label: several responses per problem, from one or several policies."""

from typing import Any

from rlhf_prm.generation.requests import Generate, unit_seed
from rlhf_prm.generation.tasks import Emit, Task


def sample_task(key: str | int, prompt: str, num_responses: int, seed: int, about: dict[str, Any]) -> Task:
    """``num_responses`` responses to one rendered prompt; emits and returns one record with them.

    Args:
        key: names the problem and the policy; the seed of its sampling follows from it.
        about: further columns of the record.
    """
    responses = yield Generate(prompt, num_responses, unit_seed(seed, "sample", key), group=prompt)
    record = {**about, "responses": responses}
    yield Emit(record)
    return record
