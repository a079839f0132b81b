"""``rlhf-prm evaluate``: every evaluation from the command line, against its own function."""

import argparse
import json
import shutil

import pytest

from rlhf_prm.cli import main
from rlhf_prm.evaluation.arguments import add_prm_arguments, check_prm, check_prms, scorer_from
from rlhf_prm.evaluation.best_of_n import best_of_n
from rlhf_prm.evaluation.processbench import load_processbench, processbench
from rlhf_prm.evaluation.samples import load_samples, scored
from rlhf_prm.prm import load_prm
from tests.evaluation.fakes import BoxVerifier
from tests.prm import prm_checkpoints


def write(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def evaluate(*arguments) -> int:
    return main(["evaluate", *map(str, arguments)])


def test_processbench(prm_folder, tmp_path, capsys):
    rows = [
        {"problem": "step 1", "steps": ["good 1", "bad 2"], "label": 1},
        {"problem": "step 2", "steps": ["good 1", "good 2"], "label": -1},
    ]
    write(tmp_path / "processbench_gsm8k.jsonl", rows)
    write(tmp_path / "math.jsonl", rows[:1])
    out = tmp_path / "out" / "results.json"
    assert (
        evaluate("processbench", "--prm", prm_folder, "--data", tmp_path, "--threshold", "gsm8k", "--output", out) == 0
    )
    printed = capsys.readouterr().out
    assert "not in" in printed and "olympiadbench, omnimath" in printed and "error_accuracy" in printed
    expected = processbench(load_prm(prm_folder), load_processbench(tmp_path), "gsm8k")
    assert json.loads(out.read_text())["results"] == expected
    assert evaluate("processbench", "--prm", prm_folder, "--data", tmp_path / "none") == 2
    assert "no ProcessBench file" in capsys.readouterr().err


def test_processbench_says_what_an_outcome_models_first_error_is(prm_folder, tmp_path, capsys):
    rows = [{"problem": "step 1", "steps": ["good 1", "bad 2"], "label": 1}]
    data, outcome = write(tmp_path / "mine.jsonl", rows), tmp_path / "outcome"
    shutil.copytree(prm_folder, outcome)
    config = json.loads((outcome / "config.json").read_text())
    (outcome / "config.json").write_text(json.dumps(config | {"prm_target": "outcome"}))
    for folder, told in ((prm_folder, False), (outcome, True)):
        assert evaluate("processbench", "--prm", folder, "--data", data) == 0
        assert ("it judges whole solutions" in capsys.readouterr().out) is told


def test_best_of_n_from_a_file_of_samples(prm_folder, tmp_path, capsys):
    texts = ["good\n\n\\boxed{1}", "bad\n\n\\boxed{2}", "\\boxed{1}"]
    path = write(tmp_path / "samples.jsonl", [{"problem": "step 1", "completions": texts, "solution": "1"}])
    out = tmp_path / "results.json"
    arguments = ("best_of_n", "--prm", prm_folder, "--samples", path, "--n", 2, 3, "--output", out)
    assert evaluate(*arguments, "--verifier", "tests.evaluation.fakes.BoxVerifier") == 0
    samples = scored(load_samples(path, BoxVerifier()), load_prm(prm_folder))
    results = json.loads(out.read_text())["results"]
    assert results == best_of_n(samples, 2) | best_of_n(samples, 3)
    assert "weighted-maj-product@3" in capsys.readouterr().out
    assert evaluate("best_of_n", "--prm", prm_folder) == 2
    assert "either --samples FILE or --policy MODEL" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "row", "column"),
    [
        (
            "mr_ben",
            {
                "Question": "step", "Subject": "math", "Model_Solution_Steps": ["good", "bad"],
                "Model_Solution_Correctness": "incorrect", "Model_Solution_First_Error_Step": "2",
            },
            "mr_score_without_reason",
        ),
        (
            "prmbench",
            {
                "modified_question": "step", "modified_process": ["good", "bad"], "error_steps": [2],
                "classification": "circular",
            },
            "prm_score",
        ),
        ("rmb", {"prompt": "step", "winner": "good\n\n1", "losers": ["bad"]}, "accuracy"),
    ],
)  # fmt: skip
def test_benchmark_files(name, row, column, prm_folder, tmp_path, capsys):
    assert evaluate(name, "--prm", prm_folder, "--data", write(tmp_path / "rows.jsonl", [row])) == 0
    assert column in capsys.readouterr().out


def prm_arguments(*given, many=False):
    parser = argparse.ArgumentParser()
    add_prm_arguments(parser, many)
    return parser.parse_args([str(one) for one in given])


def test_the_check_of_a_prm_reads_its_keywords(prm_folder, policy_folder):
    with pytest.raises(ValueError, match="fits no family of PRMs"):
        check_prm(prm_arguments("--prm", policy_folder))
    marks = json.dumps({"family": "causal_tag", "tag": "step", "good": "good", "bad": "bad"})
    check_prm(prm_arguments("--prm", policy_folder, "--prm-kwargs", marks))
    check_prm(prm_arguments("--prm", policy_folder, "--prm-kwargs", json.dumps({"reference": str(policy_folder)})))
    with pytest.raises(ValueError, match="has no effect: PRMs of family 'qwen_prm' have none"):
        check_prm(prm_arguments("--prm", prm_folder, "--reference", policy_folder))


def test_of_several_prms_the_implicit_one_is_given_the_reference(prm_folder, policy_folder, tmp_path):
    args = prm_arguments("--prm", prm_folder, policy_folder, "--reference", policy_folder, many=True)
    for name, family in ((prm_folder, "qwen_prm"), (policy_folder, "implicit_prm")):
        check_prm(args, str(name))
        assert scorer_from(args, str(name), watched=False).family.name == family
    check_prms(args)
    shepherd = prm_checkpoints.math_shepherd(tmp_path / "math-shepherd")
    args = prm_arguments("--prm", shepherd, policy_folder, "--reference", policy_folder, many=True)
    assert scorer_from(args, str(shepherd), watched=False).family.name == "math_shepherd"  # a causal LM, too
    for given in (("--reference", policy_folder), ("--prm-kwargs", json.dumps({"reference": str(policy_folder)}))):
        with pytest.raises(ValueError, match=r"--reference .* has no effect: none of .* is an implicit PRM"):
            check_prms(prm_arguments("--prm", prm_folder, prm_folder, *given, many=True))


def test_what_only_a_prm_reads_is_refused_beside_a_judge_alone(prm_folder):
    given = ("--max-length", 99, "--prm")
    with pytest.raises(ValueError, match="--max-length 99 has no effect on judge:m, not a PRM"):
        check_prm(prm_arguments(*given, "judge:m"))
    check_prms(prm_arguments(*given, "judge:m", prm_folder, many=True))
    check_prms(prm_arguments("--prm", "judge:m", "judge:n", many=True))


def test_a_served_prm_is_loaded_with_the_default_arguments(prm_folder):
    served = ("--prm", prm_folder, "--placement", "server")
    scorer_from(prm_arguments(*served), watched=False).close()
    with pytest.raises(ValueError, match="max_batch_tokens=64 has no effect"):
        scorer_from(prm_arguments(*served, "--max-batch-tokens", 64))


def test_sampling_from_a_policy(prm_folder, policy_folder, tmp_path, capsys):
    problems = write(tmp_path / "problems.jsonl", [{"problem": f"step {k}", "solution": str(k)} for k in range(3)])
    policy = ("--policy", policy_folder, "--problems", problems, "--template", "plain", "--max-tokens", 12)
    plain = ("--verifier", "tests.evaluation.fakes.BoxVerifier")
    assert evaluate("best_of_n", "--prm", prm_folder, *policy, *plain, "--n", 2) == 0
    assert "pass@2" in capsys.readouterr().out
    assert evaluate("step_search", "--prm", prm_folder, *policy, *plain, "--token-budget", 20) == 0
    printed = capsys.readouterr().out
    assert "step_search" in printed and "taken_back" in printed
    guided = ("--search", "greedy", "beam", "dvts", "--width", 2, "--candidates", 1, "--token-budget", 12)
    assert evaluate("step_search", "--prm", prm_folder, *policy, *plain, *guided) == 0
    printed = capsys.readouterr().out
    assert all(f"\n{method}" in printed for method in ("greedy", "beam", "dvts"))
