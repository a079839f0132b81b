"""The command line's start: help comes without torch and the other heavy packages, in a fraction of a second."""

import subprocess
import sys

import pytest

from rlhf_prm.cli import COMMANDS, main
from rlhf_prm.prm import FAMILIES
from rlhf_prm.prm.load import IN_PROCESS
from rlhf_prm.prm.protocol import PLACEMENTS

HEAVY = (
    "torch",
    "transformers",
    "trl",
    "datasets",
    "accelerate",
    "deepspeed",
    "vllm",
    "scipy.stats",
    "pyarrow",
    "sympy",
)
PROGRAM = """
import contextlib, io, sys
from rlhf_prm.cli import main
for call in {calls}:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        try:
            main([*call, "--help"])
        except SystemExit as ended:
            assert ended.code == 0, (call, ended.code)
    assert "usage: rlhf-prm" in said.getvalue(), call
    loaded = [name for name in {heavy} if name in sys.modules]
    assert not loaded, (call, loaded)
"""
CALLS = [
    [],
    *([name] for name in COMMANDS),
    *(["evaluate", kind] for kind in ("processbench", "best_of_n", "mr_ben", "prmbench", "rmb", "step_search")),
    *(["evaluate", kind] for kind in ("first_errors", "judge_best_of_n")),
    *(["label", kind] for kind in ("decomposed", "mutations")),
]


def test_help_loads_nothing_heavy():
    program = PROGRAM.format(heavy=HEAVY, calls=CALLS)
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 0 and not ended.stderr, ended.stderr


def test_every_command_is_in_the_help(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    told = capsys.readouterr().out
    assert all(name in told for name in COMMANDS)


def test_what_help_says_without_loading_is_what_there_is():
    """The placements are listed beside the loader."""
    assert set(PLACEMENTS) == {*IN_PROCESS, "server"}
    assert "auto" not in FAMILIES
