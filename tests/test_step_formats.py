"""Other projects' step labels: a row in the shape each data set publishes, what becomes of it, and what is refused.

The texts of the Math-Shepherd row are those of its first published one (GSM8K); the others are in their data sets'
shapes with short texts.
"""

import json

import pytest

from rlhf_prm.step_data import read_rows

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


def test_the_two_readers_of_math_shepherd_agree_on_the_real_file(shared_data):
    """OpenRLHF's copy has the same texts and the signs as a list."""
    records = [json.loads(line) for line in (shared_data / "openr_samples_math-shepherd.jsonl").open()]
    from rlhf_prm.step_data import READERS

    for record in records:
        marks, rest = [], record["label"]
        for piece in record["input"].split("ки")[:-1]:
            marks.append(rest[len(piece)])
            rest = rest[len(piece) + 1 :]
        ((row,), (other,)) = READERS["math-shepherd"](record), READERS["openrlhf"](record | {"value": marks})
        assert {**row, "source": ""} == {**other, "source": ""}
