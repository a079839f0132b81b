"""Prompts from local files, whatever their columns are called."""

import json

import pytest

from rlhf_prm.columns import PROBLEM_COLUMNS
from rlhf_prm.prompts import keep_gold, load_prompts

ROWS = [{"question": f"What is {i}?", "answer": f"#### {i}", "extra": 1} for i in range(10)]
COLUMNS = {"prompt": "question", "solution": "answer"}


@pytest.fixture
def jsonl(tmp_path):
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(path)


def test_columns_are_mapped(jsonl):
    dataset = load_prompts(jsonl, columns=COLUMNS, limit=3)
    assert dataset.column_names == ["prompt", "problem", "solution"]
    assert dataset[2] == {"prompt": "What is 2?", "problem": "What is 2?", "solution": "#### 2"}


def test_usual_names_are_found(jsonl, tmp_path):
    assert load_prompts(jsonl)[2] == load_prompts(jsonl, columns=COLUMNS)[2]
    path = tmp_path / "both.jsonl"
    path.write_text(json.dumps({"prompt": "Solve: 1 + 1", "problem": "1 + 1", "solution": None}))
    assert load_prompts(str(path))[0]["prompt"] == "Solve: 1 + 1"  # what a policy is trained on
    assert load_prompts(str(path), usual_prompts=PROBLEM_COLUMNS)[0]["problem"] == "1 + 1"
    path.write_text(json.dumps({"problem": "1 + 1"}))
    with pytest.raises(ValueError, match="no column solution or answer for the solution; there are problem"):
        load_prompts(str(path))


def test_chat_wraps_the_prompt_and_keeps_the_problem(jsonl):
    row = load_prompts(jsonl, columns=COLUMNS, chat=True, system_prompt="Think.")[0]
    assert row["prompt"] == [{"role": "system", "content": "Think."}, {"role": "user", "content": "What is 0?"}]
    assert row["problem"] == "What is 0?"


def test_parquet_and_numbers_as_gold(tmp_path):
    import pandas as pd

    path = tmp_path / "p.parquet"
    pd.DataFrame({"prompt": ["a"], "solution": [7]}).to_parquet(path)
    assert load_prompts(str(path))[0]["solution"] == "7"


@pytest.mark.parametrize(
    ("source", "columns", "message"),
    [
        ("absent.jsonl", None, "no file at"),
        ("no-such-org/no-such-set", None, "neither a local"),
        (None, {"prompt": "query"}, r"no column 'query' for the prompt; there are answer, extra, question\. Map them"),
        (None, {"gold": "answer"}, "got gold, expected some of prompt, problem, solution"),
    ],
)
def test_what_is_not_there_is_said(jsonl, source, columns, message):
    with pytest.raises(ValueError, match=message):
        load_prompts(source or jsonl, columns=columns)


def test_gold_fraction(jsonl):
    dataset = load_prompts(jsonl, columns=COLUMNS)
    kept = keep_gold(dataset, 0.3, seed=1)
    assert sum(gold is not None for gold in kept["solution"]) == 3
    assert kept["solution"] == keep_gold(dataset, 0.3, seed=1)["solution"]
    assert kept["solution"] != keep_gold(dataset, 0.3, seed=2)["solution"]
    assert keep_gold(dataset, 1.0, seed=0)["solution"] == dataset["solution"]
    with pytest.raises(ValueError, match=r"gold_fraction: got 1\.5"):
        keep_gold(dataset, 1.5, seed=0)
