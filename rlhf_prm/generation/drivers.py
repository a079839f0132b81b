"""Runs many labelling tasks at once: in batches on any generator, or concurrently on endpoints."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from reward.verifier import Verdict, Verifier
from rlhf_prm.generation import Generator
from rlhf_prm.generation.endpoint import EndpointGenerator
from rlhf_prm.generation.requests import Choose, Generate, GenerationError
from rlhf_prm.generation.tasks import Emit, RejectedRow, Rejection, Task, Verify

Sink = Callable[[Any, dict[str, Any]], None]
"""``sink(key, record)`` stores a record of the task called ``key``."""


class _Live:
    """A started task: the request it waits on, or its result."""

    def __init__(self, key: Any, task: Task, sink: Sink | None):
        self.key, self.task, self.sink = key, task, sink
        self.request: Generate | Choose | Verify | None = None
        self.done, self.result = False, None
        self.answer(None)

    def answer(self, value: Any) -> None:
        self._advance(lambda: self.task.send(value))

    def reject(self, error: GenerationError) -> None:
        self._advance(lambda: self.task.throw(error))

    def _advance(self, resume: Callable[[], Any]) -> None:
        try:
            request = resume()
            while isinstance(request, Emit):
                if self.sink is not None:
                    self.sink(self.key, request.record)
                request = self.task.send(None)
            self.request = request
        except StopIteration as stop:
            self.done, self.result = True, stop.value
        except (RejectedRow, GenerationError) as error:
            self.done, self.result = True, Rejection(str(error))


def run_batched(
    tasks: Iterable[tuple[Any, Task]],
    generator: Generator,
    verifier: Verifier | None = None,
    *,
    window: int = 256,
    sink: Sink | None = None,
) -> Iterator[tuple[Any, Any]]:
    """Finished (key, result) pairs; a rejected task's result is a ``Rejection``.

    At most ``window`` tasks are alive. Each round makes one call for all waiting verifications, then
    one for all waiting generations, so the order of the work does not depend on timing.
    """
    source = iter(tasks)
    live: list[_Live] = []
    while True:
        live += [_Live(key, task, sink) for key, task in islice(source, window - len(live))]
        if not live:
            return
        _verify_all([one for one in live if not one.done and isinstance(one.request, Verify)], verifier)
        _choose_all([one for one in live if not one.done and isinstance(one.request, Choose)], generator)
        if not any(not one.done and isinstance(one.request, Verify) for one in live):
            _generate_all([one for one in live if not one.done and isinstance(one.request, Generate)], generator)
        yield from ((one.key, one.result) for one in live if one.done)
        live = [one for one in live if not one.done]


def _verify_all(waiting: list[_Live], verifier: Verifier | None) -> None:
    if waiting:
        answers = _verdicts(verifier, [one.request for one in waiting])
        for one, verdicts in zip(waiting, answers, strict=True):
            one.answer(verdicts)


def _verdicts(verifier: Verifier | None, requests: list[Verify]) -> list[list[Verdict]]:
    """The verdicts of each request, from one call."""
    completions = [text for request in requests for text in request.completions]
    golds = [request.solution for request in requests for _ in request.completions]
    verdicts = iter(verifier.verify(completions, golds))
    return [list(islice(verdicts, len(request.completions))) for request in requests]


def _choose_all(waiting: list[_Live], generator: Generator) -> None:
    """Probabilities of choices, if the generator gives them; else None."""
    choose = getattr(generator, "choose", None)
    for one in waiting:
        try:
            one.answer(None if choose is None else choose([one.request.prompt], one.request.choices)[0])
        except GenerationError as error:
            one.reject(error)


def _generate_all(waiting: list[_Live], generator: Generator) -> None:
    for n, stop in sorted({(one.request.n, one.request.stop) for one in waiting}):
        same = [one for one in waiting if (one.request.n, one.request.stop) == (n, stop)]
        try:
            seeds = [one.request.seed for one in same]
            prompts = [one.request.prompt for one in same]
            answers = generator.generate(prompts, n, seed=seeds, stop=list(stop) or None)
            check_answers(generator, answers, len(same), n)
        except GenerationError as error:
            if len(same) == 1:
                same[0].reject(error)
                continue
            middle = len(same) // 2  # halve the batch, so that one bad prompt fails alone
            _generate_all(same[:middle], generator)
            _generate_all(same[middle:], generator)
            continue
        for one, texts in zip(same, answers, strict=True):
            one.answer(texts)


def check_answers(generator: Generator, answers: Any, num_prompts: int, n: int) -> None:
    """Check that a generator returned what ``Generator.generate`` promises: n texts for each prompt.

    Raises:
        ValueError: it did not.
    """
    if not isinstance(answers, list) or len(answers) != num_prompts:
        got = f"{len(answers)} lists" if isinstance(answers, list) else f"a {type(answers).__name__}"
        raise ValueError(f"{type(generator).__name__}.generate gave {got} for {num_prompts} prompts, expected one each")
    for texts in answers:
        if not isinstance(texts, list) or len(texts) != n or not all(isinstance(text, str) for text in texts):
            raise ValueError(
                f"{type(generator).__name__}.generate gave {texts!r:.80} for one prompt, expected a list of {n} texts"
            )


async def run_concurrent(
    tasks: Iterable[tuple[Any, Task]],
    generator: EndpointGenerator,
    verifier: Verifier | None = None,
    *,
    window: int = 256,
    sink: Sink | None = None,
    finished: Callable[[Any, Any], None],
) -> None:
    """Call ``finished(key, result)`` for every task as it ends; a rejected task's result is a ``Rejection``.

    At most ``window`` tasks are alive, and each continues as soon as its own answer has come. Verdicts are computed in
    a thread, all waiting ones in one call.
    """
    source = iter(tasks)
    verifying = _VerifyQueue(verifier)

    async def work() -> None:
        for key, task in source:
            one = _Live(key, task, sink)
            while not one.done:
                if isinstance(one.request, Verify):
                    one.answer(await verifying.verdicts(one.request))
                    continue
                if isinstance(one.request, Choose):
                    one.answer(None)  # an endpoint gives texts only
                    continue
                try:
                    texts = await generator.complete(one.request, list(one.request.stop) or None)
                except GenerationError as error:
                    one.reject(error)
                else:
                    one.answer(texts)
            finished(one.key, one.result)

    try:
        async with generator, asyncio.TaskGroup() as group:
            for _ in range(window):
                group.create_task(work())
    except BaseExceptionGroup as errors:  # the first one cancelled the rest
        raise errors.exceptions[0] from None


class _VerifyQueue:
    """Verdicts from a verifier that is called by one thread at a time."""

    def __init__(self, verifier: Verifier | None):
        self.verifier = verifier
        self.waiting: list[tuple[Verify, asyncio.Future]] = []
        self.running: asyncio.Task | None = None

    async def verdicts(self, request: Verify) -> list[Verdict]:
        answer = asyncio.get_running_loop().create_future()
        self.waiting.append((request, answer))
        if self.running is None:
            self.running = asyncio.create_task(self._drain())
        return await answer

    async def _drain(self) -> None:
        while self.waiting:
            batch, self.waiting = self.waiting, []
            try:
                answers = await asyncio.to_thread(_verdicts, self.verifier, [request for request, _ in batch])
            except Exception as error:  # the verifier's failure is raised where the verdicts are awaited
                for _, answer in batch:
                    if not answer.cancelled():
                        answer.set_exception(error)
                continue
            for (_, answer), verdicts in zip(batch, answers, strict=True):
                if not answer.cancelled():
                    answer.set_result(verdicts)
        self.running = None
