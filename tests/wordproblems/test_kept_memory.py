"""Freed memory that is kept is not filled with zeros again."""

import subprocess
import sys

import pytest

from rlhf_prm.wordproblems import kept_memory

# In a process of its own, which has no other's settings: the pages that the system supplies while 40 MB, more than
# glibc ever takes from its heap by itself, are allocated, written and freed six times.
COUNT = """
import resource, runpy, sys
keep = runpy.run_path(sys.argv[1])["keep_freed_memory"]
if sys.argv[2] == "kept" and not keep():
    raise SystemExit("not glibc")
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(6):
    b"x" * (40 * 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages_supplied(how: str) -> int:
    command = [sys.executable, "-c", COUNT, kept_memory.__file__, how]
    done = subprocess.run(command, capture_output=True, text=True)
    if "not glibc" in done.stderr:
        pytest.skip("the C library has no mallopt")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_memory_is_supplied_once_instead_of_every_time():
    assert 3 * pages_supplied("kept") < pages_supplied("left")
