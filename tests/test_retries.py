"""One retry policy: which failures pass, how long is waited, and what Retry-After says."""

import time
from email.utils import formatdate

import httpx
import pytest
from tenacity import Retrying, stop_after_attempt, stop_before_delay

from rlhf_prm.retries import PassingFailure, doubled, policy, raise_if_passing, retry_after


def test_retry_after_holds_seconds_or_a_date():
    assert retry_after("2.5") == 2.5 and retry_after(None) is None and retry_after("soon") is None
    assert retry_after("-3") == 0.0
    assert 3 < retry_after(formatdate(time.time() + 5, usegmt=True)) <= 5
    assert retry_after(formatdate(time.time() - 5, usegmt=True)) == 0.0


def test_waits_double_up_to_the_longest():
    assert [doubled(0.5, 3.0, times) for times in (1, 2, 3, 4, 100_000)] == [0.5, 1.0, 2.0, 3.0, 3.0]


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_statuses_that_pass(status):
    response = httpx.Response(status, text="not now", headers={"Retry-After": "7"})
    with pytest.raises(PassingFailure, match=f"status {status}: not now") as failure:
        raise_if_passing(response)
    assert failure.value.after == 7.0


@pytest.mark.parametrize("status", [200, 204, 301, 400, 401, 404, 422, 501])
def test_statuses_that_do_not(status):
    raise_if_passing(httpx.Response(status))


def waits_of(failures, stop, **told):
    """The seconds slept between attempts that fail as told; the last one is raised."""
    slept, left = [], list(failures)

    def attempt():
        raise left.pop(0)

    with pytest.raises(type(failures[-1])):
        Retrying(sleep=slept.append, **policy(stop, **{"first_wait": 1.0, "longest_wait": 4.0} | told))(attempt)
    return slept, len(failures) - len(left)


def test_the_wait_has_full_jitter_and_is_never_below_retry_after(monkeypatch):
    monkeypatch.setattr("random.uniform", lambda low, high: low + 0.75 * (high - low))
    failures = [PassingFailure("full", after) for after in (None, 0.1, 9.0, None, None)]
    assert waits_of(failures, stop_after_attempt(5)) == ([0.75, 1.5, 9.0, 3.0], 5)


def test_other_errors_are_not_tried_again():
    assert waits_of([ValueError("refused")], stop_after_attempt(5)) == ([], 1)


def test_a_retry_after_beyond_the_deadline_is_not_waited_for():
    assert waits_of([PassingFailure("full", 60.0)], stop_before_delay(30.0)) == ([], 1)
