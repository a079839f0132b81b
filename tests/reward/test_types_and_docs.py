"""Shapes are checked under pytest; the example of the docs page runs; the benchmark covers every method."""

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError

import reward
from reward import METHODS
from tests.reward.method_cases import NEED_OUTCOME

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "call",
    [
        lambda: reward.discounted_returns(torch.ones(2, 3), torch.ones(2, 4, dtype=torch.bool)),
        lambda: reward.discounted_returns(torch.ones(2, 3), torch.ones(2, 3)),
        lambda: reward.discounted_returns(torch.ones(2, 3).long(), torch.ones(2, 3, dtype=torch.bool)),
        lambda: reward.leave_one_out_baseline(torch.ones(2, 1), torch.ones(2, 1, dtype=torch.bool), 2),
        lambda: reward.group_normalized(torch.ones(4, 3), torch.ones(4, 2, dtype=torch.bool), 2),
        lambda: reward.step_to_token(torch.ones(2, 3), torch.ones(2, 2).long(), 6),
        lambda: reward.clip_shaping(torch.ones(2, 3), torch.ones(3, 2, dtype=torch.bool)),
        lambda: METHODS["outcome"](torch.ones(2, 3)),
    ],
)
def test_shapes_and_dtypes_are_checked_under_pytest(call):
    with pytest.raises(TypeCheckError):
        call()


def test_the_example_of_the_docs_page_runs():
    page = (ROOT / "docs" / "methods.md").read_text()
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL).group(1)
    names = {}
    exec(code, names)  # our own documentation
    assert names["tokens"].shape == (2, 6)
    assert names["tokens"][0, :2].unique().numel() == 1 and not names["tokens"][1, 4:].any()


def test_the_docs_name_the_methods_that_need_the_outcome():

    assert f"`{' '.join(NEED_OUTCOME)}`" in (ROOT / "docs" / "methods.md").read_text()


def test_the_benchmark_covers_every_method(monkeypatch, capsys):
    size = "--rollouts 16 --steps 4 --tokens 64 --repeats 2 --limit 10000"
    monkeypatch.setattr(sys, "argv", ["methods.py", *size.split()])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "benchmarks" / "methods.py"), run_name="__main__")
    assert not ended.value.code
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines()[3:]] == list(METHODS)
