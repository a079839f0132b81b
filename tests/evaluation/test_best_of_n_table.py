"""Equal answers, other programs' samples, outcome models, and the table of PRMs by sets."""

import json

import pytest

from reward.verifier import MathVerifier
from rlhf_prm.cli import main
from rlhf_prm.evaluation.best_of_n import best_of_n, expected_majority, problem_values
from rlhf_prm.evaluation.best_of_n_command import named_files
from rlhf_prm.evaluation.equal_answers import with_equal_answers
from rlhf_prm.evaluation.samples import SampledProblem, load_samples, read_sample_rows, scored
from rlhf_prm.prm import load_prm
from tests.evaluation.fakes import BoxVerifier

VERIFIER = ("--verifier", "tests.evaluation.fakes.BoxVerifier")


@pytest.fixture(scope="module")
def math_verifier():
    with MathVerifier(workers=1) as verifier:
        yield verifier


def test_spellings_of_one_answer_vote_together(math_verifier):
    """Two right answers and three wrong ones; by its texts the wrong one wins, by values the right."""
    answers = ["\\frac{1}{2}", "0.5", "1/2", "3", "3", None]
    correct = [True, True, True, False, False, False]
    sample = SampledProblem("p", [["s"]] * 6, correct, answers)
    assert expected_majority(answers, correct, 6) == 0.0
    (equal,) = with_equal_answers([sample], math_verifier)
    assert equal.answers == ["\\frac{1}{2}"] * 3 + ["3", "3", None]
    assert expected_majority(equal.answers, correct, 6) == 1.0


def test_wrong_answers_are_grouped_too(math_verifier):
    """Three spellings of a wrong answer outvote two right ones; another wrong answer stays apart."""
    one = SampledProblem(
        "p", [["s"]] * 6, [True, True, False, False, False, False], ["7", "7", "0.25", "\\frac14", "1/4", "9"]
    )
    other = SampledProblem("q", [["s"]], [False], [None])
    equal, alone = with_equal_answers([one, other], math_verifier)
    assert equal.answers == ["7", "7", "0.25", "0.25", "0.25", "9"] and alone.answers == [None]
    assert expected_majority(one.answers, one.correct, 6) == 1.0
    assert expected_majority(equal.answers, equal.correct, 6) == 0.0


def test_an_outcome_model_has_one_rule():
    """rm@n chooses by the score of the whole solution, that of its last step."""
    sample = SampledProblem(
        "p", [["s", "t"], ["s", "t"]], [True, False], ["1", "2"], step_scores=[[0.1, 0.9], [0.8, 0.8]]
    )
    values = problem_values(sample, 2, target="outcome")
    assert set(values) == {"mean@1", "pass@2", "maj@2", "rm@2", "weighted-maj-rm@2"}
    assert values["rm@2"] == 1.0 == problem_values(sample, 2)["last@2"]
    assert problem_values(sample, 2)["product@2"] == 0.0


def test_the_layout_of_qwens_evaluation(tmp_path):
    """``prompt`` there is the rendered prompt; the problem is ``question``."""
    path = tmp_path / "qwen.jsonl"
    row = {
        "idx": 0, "question": "What is 1 + 1?", "gt_cot": "It is 2.", "gt": "2", "prompt": "<|im_start|>…",
        "answer": "2", "code": ["so \\boxed{2}", "so \\boxed{3}"], "pred": ["2", "3"], "score": [True, False],
    }  # fmt: skip
    path.write_text(json.dumps(row))
    (read,) = read_sample_rows(path)
    assert (read.problem, read.completions, read.solution) == ("What is 1 + 1?", row["code"], "2")
    (sample,) = load_samples(path, BoxVerifier())
    assert sample.correct == row["score"]


def write(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


@pytest.fixture
def sets(tmp_path):
    texts = ["good\n\n\\boxed{1}", "bad\n\n\\boxed{2}", "\\boxed{1}"]
    rows = [{"problem": "step 1", "completions": texts, "solution": "1"}]
    return {
        "easy": write(tmp_path / "a.jsonl", rows),
        "hard": write(tmp_path / "b.jsonl", [{"q": "step 2", "outs": texts[1:], "gold": "1"}]),
    }


def evaluate(*arguments) -> int:
    return main(["evaluate", "best_of_n", *map(str, arguments), *VERIFIER])


def test_the_table_of_two_prms_on_two_sets(prm_folder, sets, tmp_path, capsys):
    """Every entry is what one PRM has on one set; an outcome model is told by its config."""
    outcome = tmp_path / "outcome-model"
    outcome.mkdir()
    for file in prm_folder.iterdir():
        (outcome / file.name).write_bytes(file.read_bytes())
    config = json.loads((outcome / "config.json").read_text())
    (outcome / "config.json").write_text(json.dumps(config | {"prm_target": "outcome"}))
    write(
        tmp_path / "b.jsonl",
        [{"problem": "step 2", "completions": ["bad\n\n\\boxed{2}", "\\boxed{1}"], "solution": "1"}],
    )
    named = [f"{name}={path}" for name, path in sets.items()]
    out = tmp_path / "table.json"
    assert evaluate("--prm", prm_folder, outcome, "--samples", *named, "--n", 2, "--output", out) == 0
    results = json.loads(out.read_text())["results"]
    title = prm_folder.name
    assert list(results) == [
        "mean@1", "pass@2", "maj@2", f"{title} product@2", f"{title} min@2", f"{title} last@2", "outcome-model rm@2",
    ]  # fmt: skip
    for name, path in sets.items():
        samples = scored(load_samples(path, BoxVerifier()), load_prm(prm_folder))
        alone = best_of_n(samples, 2)
        for rule in ("product", "min", "last"):
            assert results[f"{title} {rule}@2"][name] == alone[f"{rule}@2"]["mean"]
        assert results["outcome-model rm@2"][name] == alone["last@2"]["mean"]
        assert results["pass@2"][name] == alone["pass@2"]["mean"]
    assert results["pass@2"]["mean"] == (results["pass@2"]["easy"] + results["pass@2"]["hard"]) / 2
    assert "outcome-model rm@2" in capsys.readouterr().out
    assert evaluate("--prm", outcome, "--samples", sets["easy"], "--n", 2) == 0  # one of each: with intervals
    printed = capsys.readouterr().out
    assert "rm@2" in printed and "low" in printed and "product" not in printed


def test_the_limit_holds_for_rows_of_a_file_too(prm_folder, tmp_path):
    """Right samples only, wrong ones only, then a row with too few samples: pass@2 is 1, then (1 + 0) / 2."""
    right, wrong = ["\\boxed{1}"] * 2, ["\\boxed{2}"] * 2
    rows = [{"problem": "step", "completions": texts, "solution": "1"} for texts in (right, wrong, ["step"])]
    path, out = write(tmp_path / "samples.jsonl", rows), tmp_path / "results.json"
    for limit, expected in ((1, 1.0), (2, 0.5)):
        arguments = ("--prm", prm_folder, "--samples", path, "--n", 2, "--limit", limit, "--output", out)
        assert evaluate(*arguments) == 0
        assert json.loads(out.read_text())["results"]["pass@2"]["mean"] == expected
    assert evaluate("--prm", prm_folder, "--samples", path, "--n", 2) == 2


def test_columns_of_other_names_and_refusals(prm_folder, sets, capsys):
    columns = ("--columns", "problem=q", "completions=outs", "solution=gold")
    assert evaluate("--prm", prm_folder, "--samples", sets["hard"], "--n", 2, *columns) == 0
    assert "pass@2" in capsys.readouterr().out
    assert evaluate("--prm", prm_folder, "--samples", sets["hard"], "--n", 2, "--columns", "text=q") == 2
    assert "expected OURS=THEIRS with problem or completions or solution" in capsys.readouterr().err
    with pytest.raises(ValueError, match="two sets are called 'a'"):
        named_files(["x/a.jsonl", "y/a.jsonl"])
    assert [*named_files(["run=1/a.jsonl", "m=b.jsonl"])] == ["run", "m"]
