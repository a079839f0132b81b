"""A process that is killed in the middle of its work: a fork of this one, which has imported everything already."""

import multiprocessing
import signal
from collections.abc import Callable
from typing import Any

import torch


def killed(work: Callable[..., Any], *arguments: Any, deadline: float = 300) -> None:
    """Runs ``work`` in a fork; fails unless SIGKILL ends it, which ``work`` sends to its own process."""
    child = multiprocessing.get_context("fork").Process(target=_in_one_thread, args=(work, *arguments))
    child.start()
    child.join(deadline)
    if child.exitcode is None:
        child.kill()
        raise AssertionError(f"not killed within {deadline:g} s")
    assert child.exitcode == -signal.SIGKILL, f"ended with {child.exitcode}; its traceback is in the output"


def _in_one_thread(work: Callable[..., Any], *arguments: Any) -> None:
    torch.set_num_threads(1)  # the pool of OpenMP threads does not survive a fork
    work(*arguments)
