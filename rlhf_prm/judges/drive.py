"""Runs the questions to a judge on its generator."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from rlhf_prm.generation import Generator
from rlhf_prm.generation.drivers import run_batched, run_concurrent
from rlhf_prm.generation.endpoint import EndpointGenerator
from rlhf_prm.generation.tasks import Task

WINDOW = 256  # tasks alive at once on a generator in this process
Finished = Callable[[Any, Any], None]


def drive(
    tasks: Iterable[tuple[Any, Task]], generator: Generator, finished: Finished, seconds: float | None = None
) -> None:
    """Run the tasks, and call ``finished(key, result)`` for each: concurrently on endpoints, else in batches.

    Args:
        seconds: after this time, questions to endpoints are given up and their tasks stay unfinished. A call to a
            generator in this process cannot be given up.
    """
    if not isinstance(generator, EndpointGenerator):
        for key, result in run_batched(tasks, generator, window=WINDOW):
            finished(key, result)
        return

    async def everything() -> None:
        try:
            async with asyncio.timeout(seconds):
                await run_concurrent(tasks, generator, window=generator.concurrency, finished=finished)
        except TimeoutError:
            pass  # ``finished`` is not called for unfinished tasks

    asyncio.run(everything())
