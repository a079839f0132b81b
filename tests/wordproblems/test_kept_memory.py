"""Freed memory that is kept is not filled with zeros again."""

import multiprocessing
import resource

import pytest
import torch

from rlhf_prm.wordproblems.kept_memory import keep_freed_memory

BLOCK, TIMES = 10 * 2**20, 6  # 40 MB of float32: above the size from which glibc maps every block


def pages_supplied(kept: bool, answers) -> None:
    """How many pages the system supplies while a block is allocated, written and freed some times."""
    if kept and not keep_freed_memory():
        answers.put(None)
        return
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(TIMES):
        torch.ones(BLOCK)
    answers.put(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)


def supplied_in_a_fork(kept: bool) -> int:
    forking = multiprocessing.get_context("fork")
    answers = forking.SimpleQueue()
    process = forking.Process(target=pages_supplied, args=(kept, answers))
    process.start()
    process.join()
    pages = answers.get()
    if pages is None:
        pytest.skip("the C library has no mallopt")
    return pages


def test_memory_is_supplied_once_instead_of_every_time():
    assert 2 * supplied_in_a_fork(kept=True) < supplied_in_a_fork(kept=False)
