"""Stepwise rows: the public formats, hand-written records and real files; round trips; what is refused."""

import json

import pytest

from rlhf_prm.step_data import (
    COLUMNS,
    StepLabels,
    check_row,
    labels_from_first_error,
    math_aps_rows,
    math_shepherd_rows,
    prm800k_rows,
    processbench_rows,
    read_rows,
    to_dataset,
    write_rows,
)


def test_step_labels():
    labels = StepLabels([True, False], [0.5, 0.0], "monte_carlo")
    assert labels.first_error == 1
    assert labels.row("p", ["a", "b", "c"]) == {
        "prompt": "p",
        "completions": ["a", "b", "c"],
        "labels": [True, False, False],
        "soft_labels": [0.5, 0.0, 0.0],
        "source": "monte_carlo",
    }
    assert labels_from_first_error(-1, 2, "x").labels == [True, True]
    assert labels_from_first_error(0, 2, "x").labels == [False]
    with pytest.raises(ValueError, match="first_error: got 2"):
        labels_from_first_error(2, 2, "x")
    with pytest.raises(ValueError, match="1 labels for 2 steps"):
        StepLabels([True], [1.0], "x").row("p", ["a", "b"])
    with pytest.raises(ValueError, match="3 labels for 2 steps"):
        StepLabels([True] * 3, [1.0] * 3, "x").row("p", ["a", "b"])
    with pytest.raises(ValueError, match="2 labels and 1 soft"):
        StepLabels([True, False], [1.0], "x")


def test_check_row_says_what_is_wrong():
    row = labels_from_first_error(0, 2, "human").row("p", ["a", "b"])
    with pytest.raises(ValueError, match="soft_labels missing"):
        check_row({k: v for k, v in row.items() if k != "soft_labels"})
    with pytest.raises(ValueError, match="'labels': 1"):
        check_row(row | {"labels": [True]})
    with pytest.raises(ValueError, match="≥ 1 step"):
        check_row(row | {"completions": [], "labels": [], "soft_labels": []})


def test_math_shepherd():
    record = {
        "input": "Two + two? Step 1: 2+2=4. ки\nStep 2: So it is 5. The answer is: 5 ки",
        "label": "Two + two? Step 1: 2+2=4. +\nStep 2: So it is 5. The answer is: 5 -",
    }
    assert math_shepherd_rows(record) == [
        {
            "prompt": "Two + two?",
            "completions": ["Step 1: 2+2=4.", "Step 2: So it is 5. The answer is: 5"],
            "labels": [True, False],
            "soft_labels": [1.0, 0.0],
            "source": "math-shepherd",
        }
    ]
    with pytest.raises(ValueError, match="differ before step mark 2"):
        math_shepherd_rows(record | {"label": record["label"].replace("So", "Thus")})


def prm800k_step(*ratings, chosen=None, human=None):
    completions = [{"text": f"s{i}({r})", "rating": r} for i, r in enumerate(ratings)]
    return {
        "completions": completions or None,
        "chosen_completion": chosen,
        "human_completion": {"text": human} if human else None,
    }


def prm800k(*steps, **extra):
    return {"question": {"problem": "p"}, "label": {"steps": list(steps)}, **extra}


def paths(record):
    return [list(zip(r["completions"], r["labels"], strict=True)) for r in prm800k_rows(record)]


def test_prm800k():
    solved = prm800k(prm800k_step(1, chosen=0), prm800k_step(-1, human="own"), prm800k_step(0, -1, chosen=0))
    begin, own = ("s0(1)", True), ("own", True)
    assert paths(solved) == [
        [begin, own, ("s0(0)", True)],
        [begin, ("s0(-1)", False)],
        [begin, own, ("s1(-1)", False)],
    ]
    error = prm800k(prm800k_step(1, chosen=0), prm800k_step(-1, 1))
    assert paths(error) == [[begin, ("s0(-1)", False)], [begin, ("s1(1)", True)]]
    gave_up = prm800k(prm800k_step(1, chosen=0), prm800k_step())
    assert paths(gave_up) == []
    assert paths(prm800k(prm800k_step(1, chosen=0), is_quality_control_question=True)) == []


def test_math_aps_follows_the_tree():
    tree = {"p": 0.5, "p\n\na": 0.25, "p\n\na\n\nb": 0.0, "p\n\na\n\nb\n\nc": 0.0, "p\n\nd": 1.0}
    record = {"reasoning_steps": [{"solution_prefix": t, "mc_value": v} for t, v in tree.items()]}
    rows = {tuple(r["completions"]): (r["labels"], r["soft_labels"], r["prompt"]) for r in math_aps_rows(record)}
    assert rows == {
        ("a", "b", "c"): ([True, False, False], [0.25, 0.0, 0.0], "p"),
        ("d",): ([True], [1.0], "p"),
    }


def test_processbench():
    (row,) = processbench_rows({"problem": "p", "steps": ["a", "b", "c"], "label": 1})
    assert row["labels"] == [True, False, False]


@pytest.mark.parametrize(
    ("file", "source", "records"),
    [
        ("openr_samples_prm800k.jsonl", "human", 6),
        ("openr_samples_math-shepherd.jsonl", "math-shepherd", 7),
        ("openr_samples_math-aps.jsonl", "math-aps", 3),
        ("processbench_gsm8k.jsonl", "human", 400),
        ("processbench_math.jsonl", "human", 1000),
    ],
)
def test_real_files(shared_data, file, source, records):
    rows = list(read_rows(shared_data / file))
    assert len(rows) >= records and {row["source"] for row in rows} == {source}
    dataset = to_dataset(rows)
    assert tuple(dataset.column_names) == COLUMNS and len(dataset) == len(rows)
    assert all(step for row in rows for step in row["completions"] if source != "math-aps")


def test_processbench_keeps_the_authors_counts(shared_data):
    rows = list(read_rows(shared_data / "processbench_gsm8k.jsonl"))
    labels = [json.loads(line)["label"] for line in (shared_data / "processbench_gsm8k.jsonl").open()]
    assert [row["labels"].index(False) if False in row["labels"] else -1 for row in rows] == labels


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_round_trip(tmp_path, suffix):
    rows = [labels_from_first_error(k, 3, "judge").row(f"π {k}", ["a", "b\n", "c"]) for k in (-1, 0, 2)]
    assert write_rows(tmp_path / f"x.{suffix}", rows) == 3
    assert list(read_rows(tmp_path / f"x.{suffix}")) == rows
    assert [p.name for p in tmp_path.iterdir()] == [f"x.{suffix}"]


def test_bad_records_name_their_line_or_are_set_aside(tmp_path):
    good = json.dumps({"problem": "p", "steps": ["a"], "label": -1})
    bad = json.dumps({"problem": "p", "steps": ["a"], "label": 4})
    path = tmp_path / "x.jsonl"
    path.write_text(f"{good}\n{bad}\nnot json\n\n{good}\n[1]\n" + '{"what": 1}\n')
    with pytest.raises(ValueError, match=r"x.jsonl:2: first_error: got 4"):
        list(read_rows(path))
    rejected = []
    assert len(list(read_rows(path, rejected=rejected))) == 2
    assert [where for where, _ in rejected] == ["x.jsonl:2", "x.jsonl:3", "x.jsonl:6", "x.jsonl:7"]
    assert "no known format" in rejected[3][1] and "not JSON" in rejected[1][1]
    with pytest.raises(ValueError, match="no column 'reasoning_steps'"):
        list(read_rows(path, format="math-aps"))
    with pytest.raises(ValueError, match="no file"):
        list(read_rows(tmp_path / "none.jsonl"))
