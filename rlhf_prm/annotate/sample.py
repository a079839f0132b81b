"""Samples solutions to label: several responses per problem, from one or several policies."""

from typing import Any

from rlhf_prm.generation.requests import Generate, Sample, unit_seed
from rlhf_prm.generation.tasks import Emit, Task


def sample_task(key: str | int, prompt: str, num_responses: int, seed: int, about: dict[str, Any]) -> Task:
    """``num_responses`` responses to one rendered prompt; emits and returns one record with them.

    If the generator gives token ids, the record keeps those of the prompt and of the responses.

    Args:
        key: names the problem and the policy; the seed of its sampling is derived from it.
        about: further columns of the record.
    """
    responses = yield Generate(prompt, num_responses, unit_seed(seed, "sample", key), group=prompt)
    record = {**about, "responses": [str(response) for response in responses]}
    if all(isinstance(one, Sample) and one.ids is not None and one.prompt_ids is not None for one in responses):
        record |= {"prompt_ids": responses[0].prompt_ids, "response_ids": [one.ids for one in responses]}
    yield Emit(record)
    return record
