"""Other projects' step labels: a row in the shape each data set publishes, what becomes of it, and what is refused.

``PUBLISHED`` are rows in the shapes of their data sets with short texts, ``published_rows.json`` rows as others wrote
them, each with its origin.
"""

import json
from pathlib import Path

import pytest

from rlhf_prm.statistics import first_error
from rlhf_prm.step_data import READERS, read_rows, to_dataset

JANET = "Janet pays $40/hour for 3 hours. How much in a year?"
FIRST, SECOND = "Step 1: She pays 40 * 3 = 120.", "Step 2: That is 120 * 50 = 6000. The answer is: 6000"
CRITIQUE = (
    "<analyze>\nLet's analyze the Paragraph 1 step by step: fine.\n</analyze>\n<verify>\nLet's use python code to find "
    "any potential error:\n```python\nprint(40 * 3)\n```\n[Code Output]\n\n```\n120\n```\n</verify>\n<output>\n"
    "**Judgement**: $\\boxed{VERDICT}$\n</output>"
)


def chat(*contents, roles=("user", "assistant"), keys=("role", "content"), system=None):
    turns = [{keys[0]: "system", keys[1]: system}] if system else []
    return turns + [{keys[0]: roles[i % 2], keys[1]: text} for i, text in enumerate(contents)]


PUBLISHED = {
    "trl": {"prompt": JANET, "completions": [FIRST, SECOND], "labels": [True, False]},
    "trl with messages": {
        "prompt": [{"role": "user", "content": JANET}], "completions": [FIRST, SECOND], "labels": [True, False],
    },
    "openrlhf": {
        "input": f"{JANET} {FIRST} ки\n{SECOND} ки", "label": f"{JANET} {FIRST} +\n{SECOND} -", "value": ["+", "-"],
        "task": "GSM8K",
    },
    "rlhflow mistral": {"conversations": chat(f"{JANET} {FIRST}", "+", SECOND, "-")},
    "rlhflow deepseek": {"conversations": chat(f"{JANET}\n\n{FIRST}\n\n", "+", f"{SECOND}\n\n", "-")},
    "genprm": {
        "conversations": chat(
            f"Question: {JANET}\n\n{FIRST}", CRITIQUE.replace("VERDICT", "Yes"),
            SECOND, CRITIQUE.replace("VERDICT", "No"),
            system="You are a math teacher.",
        )
    },
    "genprm as sharegpt": {
        "conversations": chat(
            f"Question: {JANET}\n\n{FIRST}", CRITIQUE.replace("VERDICT", "Yes"),
            SECOND, CRITIQUE.replace("VERDICT", "No"), roles=("human", "gpt"), keys=("from", "value"),
        )
    },
    "math-aps": {"question": JANET, "process": f"{FIRST} \n\n\n\n\n{SECOND} \n\n\n\n\n", "label": ["+", "-"]},
}  # fmt: skip


def read(tmp_path, *records, **options):
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return list(read_rows(path, **options))


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_row_becomes_a_stepwise_row(name, tmp_path):
    """The format is told by the columns."""
    (row,) = read(tmp_path, PUBLISHED[name])
    source = name.split()[0]
    assert row == {
        "prompt": JANET, "completions": [FIRST, SECOND], "labels": [True, False], "soft_labels": [1.0, 0.0],
        "source": source,
    }  # fmt: skip
    if source != "math-aps":
        assert read(tmp_path, PUBLISHED[name], format=source) == [row]


def test_a_step_is_right_where_its_value_is_above_zero(tmp_path):
    (row,) = read(tmp_path, {"input": f"{JANET} {FIRST} ки\n{SECOND} ки", "value": [0.25, 0]})
    assert (row["labels"], row["soft_labels"]) == ([True, False], [0.25, 0.0])


def test_one_label_for_a_process_makes_it_one_step(tmp_path):
    (row,) = read(tmp_path, {"question": JANET, "process": f"{FIRST}\n\n{SECOND}", "label": ["-"]})
    assert (row["completions"], row["labels"]) == ([f"{FIRST}\n\n{SECOND}"], [False])


def test_a_first_turn_that_cannot_be_parted_is_the_problem(tmp_path):
    joined = "Convert $(0,3)$ to polar coordinates. We use $r^2 = x^2 + y^2$."
    (row,) = read(tmp_path, {"conversations": chat(joined, "+", "So $r = 3$.", "-")})
    assert (row["prompt"], row["completions"], row["labels"]) == (joined, ["So $r = 3$."], [False])


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"prompt": "p", "completions": ["a"], "labels": [None]}, "labels: got None"),
        ({"prompt": "p", "completions": ["a", "b"], "labels": [True]}, "one label for each step"),
        ({"prompt": 3, "completions": ["a"], "labels": [True]}, "got 3, expected a text"),
        ({"input": "p Step 1: a ки b", "value": ["+"]}, "behind the last 'ки' has no label"),
        ({"input": "p Step 1: a ки", "value": ["+", "-"]}, "got 2 values for 1 steps"),
        ({"input": "p Step 1: a ки", "value": ["good"]}, "got 'good', expected +, -, or a number"),
        ({"input": "p: a ки", "value": ["+"]}, "no 'Step 1:' in 'p: a '"),
        ({"conversations": chat("p. a", "-", "b", "-")}, "cannot be told apart"),
        ({"conversations": chat("p. a", "+")}, "cannot be told apart"),
        ({"conversations": chat("Question: p\n\na", "no verdict")}, r"no \\boxed{Yes} or \\boxed{No}"),
        ({"conversations": chat("Question: p a", "\\boxed{No}")}, "no blank line between the question"),
        ({"conversations": chat("p", "+", "b")}, "expected turns of user and assistant"),
        ({"conversations": []}, "expected turns of user and assistant"),
        ({"question": "p", "process": "a", "label": ["+", "-"]}, "got 2 labels for a process of 1 steps"),
    ],
)
def test_what_cannot_be_read_names_its_line(record, message, tmp_path):
    with pytest.raises(ValueError, match=rf"data.jsonl:1: .*{message.replace('+', '[+]')}"):
        read(tmp_path, record)
    rejected = []
    assert read(tmp_path, record, rejected=rejected) == [] and len(rejected) == 1


def test_trls_type_with_more_columns_keeps_them(tmp_path):
    """Soft labels that were read as 0 and 1 would train ``loss: mse`` on something else."""
    record = {"prompt": "p", "completions": ["a", "b"], "labels": [True, True], "soft_labels": [0.9, 0.25]}
    [row] = read(tmp_path, record | {"outcome": False})
    assert (row["soft_labels"], row["source"], row["outcome"]) == ([0.9, 0.25], "trl", False)
    assert to_dataset([row])[0]["outcome"] is False
    [stepwise] = read(tmp_path, row | {"source": "human"})
    assert (stepwise["source"], stepwise["outcome"]) == ("human", False)
    with pytest.raises(ValueError, match="got 2 labels and 1 soft labels"):
        read(tmp_path, record | {"soft_labels": [0.9]})


def test_the_two_readers_of_math_shepherd_agree_on_the_real_file(shared_data):
    """OpenRLHF's copy has the same texts and the signs as a list."""
    records = [json.loads(line) for line in (shared_data / "openr_samples_math-shepherd.jsonl").open()]
    for record in records:
        marks, rest = [], record["label"]
        for piece in record["input"].split("ки")[:-1]:
            marks.append(rest[len(piece)])
            rest = rest[len(piece) + 1 :]
        ((row,), (other,)) = READERS["math-shepherd"](record), READERS["openrlhf"](record | {"value": marks})
        assert {**row, "source": ""} == {**other, "source": ""}


PUBLISHED_ROWS = json.loads((Path(__file__).parent / "published_rows.json").read_text())
FIRST_ERRORS = {  # by source: of every row that its record gives, the number of steps and the first wrong one
    "trl": [(4, 2)],
    "math-shepherd": [(5, 4)],
    "prm800k": [(5, -1)] * 7,  # its last step has seven rated alternatives, one of them neutral
    "math-aps": [(2, -1)],
    "rlhflow": [(3, -1)],
}


@pytest.mark.parametrize("source", PUBLISHED_ROWS)
def test_a_row_as_it_was_published(source, tmp_path):
    """Verbatim rows of others, with their origin beside them; by eye: how many steps, and where the first error is."""
    rows = read(tmp_path, PUBLISHED_ROWS[source]["record"])
    assert [(len(row["completions"]), first_error(row["labels"])) for row in rows] == FIRST_ERRORS[source]
    assert {row["source"] for row in rows} == {"human" if source == "prm800k" else source}
    assert all(step == step.strip() and step for row in rows for step in row["completions"])


def test_the_texts_of_a_published_row_are_its_own():
    shepherd = PUBLISHED_ROWS["math-shepherd"]["record"]
    (row,) = READERS["math-shepherd"](shepherd)
    assert row["prompt"].endswith("How much more does she spend on piano lessons than clarinet lessons in a year?")
    assert row["completions"][1] == "Step 2: She spends 40 * 3 = <<40*3=120>>120 on clarinet lessons per week."
    copied = {"input": shepherd["input"], "value": ["+", "+", "+", "+", "-"]}  # OpenRLHF's copy has the signs as a list
    (again,) = READERS["openrlhf"](copied)
    assert {**again, "source": ""} == {**row, "source": ""}
    (polar,) = READERS["rlhflow"](PUBLISHED_ROWS["rlhflow"]["record"])  # problem and first step are in one turn there
    assert polar["prompt"].startswith("Convert the point $(0,3)$") and polar["completions"][0].startswith(
        "In this case"
    )
    (tree,) = READERS["math-aps"](PUBLISHED_ROWS["math-aps"]["record"])
    assert tree["soft_labels"] == [0.9375, 0.625] and tree["prompt"].endswith("find the value of $a + 2b + 3c.$")
