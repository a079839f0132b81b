"""MathVerifier gives one verdict per completion. Comparisons run in worker processes with a deadline."""

import asyncio
import logging
import os
import threading
from collections import Counter, OrderedDict
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

from reward.verifier.answers.extract import MAX_TEXT, final_answer, gold_answer
from reward.verifier.answers.quick import quick_status
from reward.verifier.pool import Outcome, PoolSettings, WorkerPool

logger = logging.getLogger(__name__)

STATUSES = ("correct", "incorrect", "unparseable", "no_answer", "timeout", "bad_gold", "crashed")
JUDGE = "reward.verifier.answers.judge:judge"
GIB = 2**30


@dataclass(frozen=True)
class Verdict:
    """A verifier's verdict on one completion.

    Attributes:
        reward: 1.0 or 0.0 (a setting for timeout and crashed); None if the gold answer cannot be used: TRL then leaves
            the row out.
        status: one of `STATUSES`.
        answer: the final answer as the completion wrote it, or None.
        seconds: how long its comparison took (a repeated answer has the time of the first); 0 if it needed no worker.
    """

    reward: float | None
    status: str
    answer: str | None
    seconds: float


@runtime_checkable
class Verifier(Protocol):
    """Anything that gives verdicts. To use your own, give a trainer its dotted path."""

    def verify(self, completions: list[str], solutions: list[str | None]) -> list[Verdict]:
        """One verdict per completion, in order."""
        ...


class PendingVerdicts:
    """Verdicts that are being computed: do other work, then call `result` (or ``await`` this object)."""

    def __init__(self, parts: Sequence["Verdict | tuple[str, Future[Outcome]]"], pay: Mapping[str, float | None]):
        self._parts = parts
        self._pay = pay

    def result(self) -> list[Verdict]:
        """Wait for the missing ones and return all verdicts, in the order of the completions."""
        return [part if isinstance(part, Verdict) else self._verdict(*part) for part in self._parts]

    def __await__(self) -> Generator[Any, None, list[Verdict]]:
        return asyncio.to_thread(self.result).__await__()

    def _verdict(self, answer: str, future: "Future[Outcome]") -> Verdict:
        outcome = future.result()
        if outcome.state == "done" and outcome.value is not None:
            status = outcome.value
        else:
            status = {"timeout": "timeout", "died": "crashed", "error": "unparseable"}[outcome.state]
        return Verdict(self._pay[status], status, answer, outcome.seconds)


def default_workers() -> int:
    """The cores of this machine divided by the ranks on it (``LOCAL_WORLD_SIZE``), at least 1 and at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


class MathVerifier:
    """Compares final answers with gold answers in worker processes.

    Args:
        workers: the number of processes; default: the machine's cores divided by its ranks.
        deadline: seconds after which a worker is killed and its answer counts as ``timeout``.
        memory_limit: bytes of address space per worker; an answer that needs more counts as ``crashed``.
        timeout_reward, crash_reward: the rewards of those two statuses; None leaves the row out.
        cache_size: how many distinct (answer, gold) pairs are remembered.
        in_thought: whether completions begin inside a thought because the chat template opens ``<think>``; then one
            without ``</think>`` has no answer. None: the trainers set it from the prompts; otherwise it is False.

    Raises:
        ValueError: a setting is out of its range.
    """

    def __init__(
        self,
        workers: int | None = None,
        deadline: float = 5.0,
        memory_limit: int = GIB,
        timeout_reward: float | None = 0.0,
        crash_reward: float | None = 0.0,
        cache_size: int = 65_536,
        in_thought: bool | None = None,
    ):
        workers = default_workers() if workers is None else workers
        if workers < 1 or deadline <= 0 or cache_size < 1:
            raise ValueError(
                f"got workers={workers}, deadline={deadline}, cache_size={cache_size}: expected workers ≥ 1, "
                "deadline > 0 seconds and cache_size ≥ 1"
            )
        if memory_limit < GIB // 4:
            raise ValueError(f"got memory_limit={memory_limit} bytes: a worker needs at least {GIB // 4} (256 MiB)")
        self.workers = workers
        self.in_thought = in_thought
        self._pay: dict[str, float | None] = {status: 0.0 for status in STATUSES}
        self._pay |= {"correct": 1.0, "bad_gold": None, "timeout": timeout_reward, "crashed": crash_reward}
        self._settings = PoolSettings(JUDGE, deadline, memory_limit)
        self._cache: OrderedDict[tuple[str, str], Future[Outcome]] = OrderedDict()
        self._cache_size = cache_size
        self._lock = threading.Lock()
        self._named: set[str] = set()
        self.counts: Counter[str] = Counter()  # completions by how they were decided: "at once", "repeated", "compared"
        self._pool = WorkerPool(workers, self._settings)
        self._owner = os.getpid()

    def verify(self, completions: list[str], solutions: list[str | None]) -> list[Verdict]:
        """One verdict per completion, in order; blocks until all are there.

        Raises:
            ValueError: the numbers of completions and solutions differ.
        """
        return self.submit(completions, solutions).result()

    def submit(self, completions: list[str], solutions: list[str | None]) -> PendingVerdicts:
        """Start verifying and return at once; call ``.result()`` on what comes back."""
        if len(completions) != len(solutions):
            raise ValueError(
                f"got {len(completions)} completions and {len(solutions)} solutions, expected one solution for each"
            )
        if self._pool.closed:
            raise RuntimeError("this verifier is closed: make a new one")
        if os.getpid() != self._owner:
            raise RuntimeError(
                "this verifier was made before a fork and its workers belong to the parent: make a new one"
            )
        parts = [self._start(row, *pair) for row, pair in enumerate(zip(completions, solutions, strict=True))]
        return PendingVerdicts(parts, self._pay)

    def close(self) -> None:
        """End the worker processes. Also done at exit, when this object is collected, and if this process dies."""
        self._pool.close()

    def __enter__(self) -> "MathVerifier":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _start(self, row: int, completion: str, solution: str | None) -> "Verdict | tuple[str, Future[Outcome]]":
        gold = _gold(solution)
        extracted = final_answer(completion, bool(self.in_thought))
        if extracted.cut:
            self._name_once(
                "cut", f"completion of row {row} has {len(completion)} characters: only its last {MAX_TEXT} are read"
            )
        if gold is None:
            self._name_once(f"gold {solution}", f"row {row} has no gold answer that can be used: {_short(solution)}")
            self._count("at once")
            return Verdict(self._pay["bad_gold"], "bad_gold", extracted.text, 0.0)
        if extracted.text is None:
            self._count("at once")
            return Verdict(self._pay["no_answer"], "no_answer", None, 0.0)
        status = quick_status(extracted.text, gold)
        if status is not None:
            self._count("at once")
            return Verdict(self._pay[status], status, extracted.text, 0.0)
        return extracted.text, self._compared(extracted.text, gold)

    def _compared(self, answer: str, gold: str) -> "Future[Outcome]":
        """The outcome of one comparison, which may be cached, running, or started now."""
        key = (answer, gold)
        with self._lock:
            known = self._cache.get(key)
            self.counts["compared" if known is None else "repeated"] += 1
            if known is not None:
                self._cache.move_to_end(key)
                return known
            future = self._pool.submit(answer, gold)
            self._cache[key] = future
            while len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)
        future.add_done_callback(lambda done: self._settle(key, done))
        return future

    def _settle(self, key: tuple[str, str], done: "Future[Outcome]") -> None:
        """Drop outcomes from the cache that another attempt may change."""
        if done.cancelled() or done.exception() is not None or done.result().state == "died":
            with self._lock:
                self._cache.pop(key, None)

    def _count(self, how: str) -> None:
        with self._lock:
            self.counts[how] += 1

    def _name_once(self, what: str, message: str) -> None:
        with self._lock:
            if what in self._named:
                return
            self._named.add(what)
        logger.warning(message)


@lru_cache(maxsize=16_384)
def _gold(solution: str | None) -> str | None:
    return gold_answer(solution)


def _short(text: str | None) -> str:
    return repr(text) if text is None or len(text) <= 80 else f"{text[:80]!r}…"


def status_fractions(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """The share of every status, as ``verifier/<status>_frac``."""
    counts = Counter(verdict.status for verdict in verdicts)
    return {f"verifier/{status}_frac": counts[status] / max(1, len(verdicts)) for status in STATUSES}
