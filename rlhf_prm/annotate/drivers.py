"""Run many labelling tasks at once on an in-process generator."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from rlhf_prm.annotate.generators import Generator
from rlhf_prm.annotate.tasks import Emit, Generate, GenerationError, RejectedRow, Rejection, Task, Verify

Sink = Callable[[Any, dict[str, Any]], None]
"""``sink(key, record)`` stores a part of the work of the task called ``key``."""


class _Live:
    """A started task: the request it waits on, or its result."""

    def __init__(self, key: Any, task: Task, sink: Sink | None):
        self.key, self.task, self.sink = key, task, sink
        self.request: Generate | Verify | None = None
        self.done, self.result = False, None
        self.answer(None)

    def answer(self, value: Any) -> None:
        self._advance(lambda: self.task.send(value))

    def reject(self, error: RejectedRow) -> None:
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
        except RejectedRow as error:
            self.done, self.result = True, Rejection(str(error))


def run_batched(
    tasks: Iterable[tuple[Any, Task]],
    generator: Generator,
    verifier: Any = None,
    *,
    window: int = 256,
    sink: Sink | None = None,
) -> Iterator[tuple[Any, Any]]:
    """Finished (key, result) pairs; a rejected task's result is a ``Rejection``.

    At most ``window`` tasks are alive. Each round verifies everything that waits for a verdict in one call, then
    generates for everything that waits for text in one call, so the order of the work does not depend on timing.
    """
    source = iter(tasks)
    live: list[_Live] = []
    while True:
        live += [_Live(key, task, sink) for key, task in islice(source, window - len(live))]
        if not live:
            return
        _verify_all([one for one in live if not one.done and isinstance(one.request, Verify)], verifier)
        if not any(not one.done and isinstance(one.request, Verify) for one in live):
            _generate_all([one for one in live if not one.done and isinstance(one.request, Generate)], generator)
        yield from ((one.key, one.result) for one in live if one.done)
        live = [one for one in live if not one.done]


def _verify_all(waiting: list[_Live], verifier: Any) -> None:
    if not waiting:
        return
    completions = [text for one in waiting for text in one.request.completions]
    golds = [one.request.solution for one in waiting for _ in one.request.completions]
    verdicts = iter(verifier.verify(completions, golds))
    for one in waiting:
        one.answer(list(islice(verdicts, len(one.request.completions))))


def _generate_all(waiting: list[_Live], generator: Generator) -> None:
    for n in sorted({one.request.n for one in waiting}):
        same = [one for one in waiting if one.request.n == n]
        try:
            answers = generator.generate([one.request.prompt for one in same], n, seed=[o.request.seed for o in same])
        except GenerationError as error:
            if len(same) == 1:
                same[0].reject(error)
                continue
            for one in same:  # one bad prompt must not take its batch with it
                _generate_all([one], generator)
            continue
        for one, texts in zip(same, answers, strict=True):
            one.answer(texts)
