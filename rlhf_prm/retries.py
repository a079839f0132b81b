"""The retry policy of all requests: waits that double, with jitter, and a server's Retry-After."""

import email.utils
import random
import time
from collections.abc import Callable
from typing import Any

import httpx
from tenacity import RetryCallState, retry_if_exception_type

RETRIED = frozenset({408, 409, 425, 429})  # and 5xx: a server that starts, restarts or is full
NOT_IMPLEMENTED = 501  # vLLM's status for a request that the model cannot serve


class PassingFailure(Exception):
    """An attempt failed, but another may succeed; ``after`` is the server's Retry-After in seconds."""

    def __init__(self, reason: str, after: float | None = None):
        super().__init__(reason)
        self.after = after


def policy(stop: Callable[[RetryCallState], bool], first_wait: float, longest_wait: float) -> dict[str, Any]:
    """Keywords of tenacity's ``Retrying`` and ``AsyncRetrying``: a PassingFailure is tried again, until ``stop``.

    The wait is :func:`doubled` with full jitter, so that requests that failed together are not repeated together. It is
    never shorter than the server's Retry-After.
    """

    def wait(state: RetryCallState) -> float:
        after = state.outcome.exception().after or 0.0
        return max(after, random.uniform(0, doubled(first_wait, longest_wait, state.attempt_number)))

    return {"retry": retry_if_exception_type(PassingFailure), "wait": wait, "stop": stop, "reraise": True}


def doubled(first: float, longest: float, times: int) -> float:
    """``first``, twice that the second time, and so on, but never above ``longest``."""
    return min(longest, first * 2.0 ** min(times - 1, 60))


def raise_if_passing(response: httpx.Response) -> None:
    """Raise a PassingFailure for a status that may be temporary."""
    status = response.status_code
    if status in RETRIED or (status >= 500 and status != NOT_IMPLEMENTED):
        raise PassingFailure(
            f"status {status}: {response.text[:300]}", retry_after(response.headers.get("Retry-After"))
        )


def retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header, which holds seconds or a date; None where it holds neither."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
