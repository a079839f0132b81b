"""What goes wrong on a command line, case by case through ``main``: one line that says what came, what was expected
and what to do, exit status 1 or 2, and nothing long begun before."""

import json
import re
import resource
import shutil
from contextlib import nullcontext

import pytest
import torch
from transformers import Qwen2ForCausalLM

from rlhf_prm.cli import main
from rlhf_prm.generation.hf import HFGenerator
from rlhf_prm.prm.qwen2 import Qwen2ForProcessRewardModel
from rlhf_prm.prm.scorer import PRMScorer
from tests.evaluation.conftest import SIZES, tiny_tokenizer
from tests.tiny_models import saved

SAMPLE = {"problem": "step", "completions": ["good\n\n\\boxed{1}"] * 8, "solution": "1"}
SOLUTION = {"problem": "step", "steps": ["good", "\\boxed{1}"], "answer": "1"}
BENCH = {"problem": "step", "steps": ["good", "bad"], "label": 1}
MR_BEN = {
    "Question": "step", "Subject": "math", "Model_Solution_Steps": ["good", "bad"],
    "Model_Solution_Correctness": "incorrect", "Model_Solution_First_Error_Step": "2",
}  # fmt: skip
PRM_BENCH = {"modified_question": "q", "modified_process": ["a", "b"], "error_steps": [1], "classification": "c"}


def rows(*records) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


FILES = {
    "empty.jsonl": "",
    "text.jsonl": "no json\n",
    "no_parquet.parquet": "x",
    "no_zip.jsonl.gz": "x",
    "table.csv": "a,b",
    "empty.csv": "",
    "samples.jsonl": rows(SAMPLE),
    "solutions.jsonl": rows(SOLUTION),
    "one_text.jsonl": rows(SAMPLE | {"completions": "good"}),
    "no_gold.jsonl": rows({"problem": "step", "completions": ["good"]}),
    "short_errors.jsonl": rows(SAMPLE | {"first_errors": [0]}),
    "late_errors.jsonl": rows(SAMPLE | {"first_errors": [9] * 8}),
    "problems.jsonl": rows({"problem": "step", "solution": "1"}),
    "other_columns.jsonl": rows({"query": "step", "target": "1"}),
    "null_verdict.jsonl": rows(MR_BEN | {"Model_Solution_Correctness": None}),
    "step_0.jsonl": rows(MR_BEN | {"Model_Solution_First_Error_Step": "0"}),
    "step_99.jsonl": rows(MR_BEN | {"Model_Solution_First_Error_Step": "99"}),
    "no_step.jsonl": rows(MR_BEN | {"Model_Solution_First_Error_Step": None}),
    "error_0.jsonl": rows(PRM_BENCH | {"error_steps": [0]}),
    "no_errors.jsonl": rows(PRM_BENCH | {"error_steps": None}),
    "rmb/bon.json": json.dumps([{"prompt": "p", "winner": "w", "losers": ["l"]}]),
    "rmb/broken.json": "[{",
    "rmb/none.json": "[]",
    "good/gsm8k.jsonl": rows(BENCH),
    "math_only/math.jsonl": rows(BENCH),
    "label_999/math.jsonl": rows(BENCH, BENCH | {"label": 999}),
    "label_minus_2/math.jsonl": rows(BENCH | {"label": -2}),
    "label_true/math.jsonl": rows(BENCH | {"label": True}),
    "no_steps/math.jsonl": rows(BENCH | {"steps": []}),
    "no_rows/math.jsonl": "\n",
    "broken.yaml": "out: [x\nproblems: y",
    "list.yaml": "- a\n- b",
    "judge.yaml": "judge: big-model",
    "policies.yaml": "policies: {model: m}",
    "odd_config/config.json": "{",
    "no_weights/config.json": None,  # a copy of the PRM's
    "a_file": "",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with FILES, a tiny PRM in prm/ and a tiny policy in policy/."""
    folder = tmp_path_factory.mktemp("place")
    torch.manual_seed(0)
    for name, model in (("prm", Qwen2ForProcessRewardModel), ("policy", Qwen2ForCausalLM)):
        saved(folder / name, tiny_tokenizer(), model, **SIZES)
    for name, content in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        if content is not None:
            (folder / name).write_text(content)
    shutil.copytree(folder / "prm", folder / "no_weights", dirs_exist_ok=True)
    (folder / "no_weights" / "model.safetensors").unlink()
    return folder


PB, BON = (
    "evaluate processbench --prm prm",
    "evaluate best_of_n --prm prm --verifier tests.evaluation.fakes.BoxVerifier",
)
MRB, PMB, RMB = (f"evaluate {name} --prm prm --data " for name in ("mr_ben", "prmbench", "rmb"))
SEARCH = "evaluate step_search --prm prm --template plain --problems problems.jsonl --policy "
FIRST = "evaluate first_errors --prm prm --verifier tests.evaluation.fakes.BoxVerifier --labelled out.jsonl --samples"
CHOICE = "evaluate judge_best_of_n --judge policy --verifier tests.evaluation.fakes.BoxVerifier --samples"
AUDIT = "audit --prm prm --verifier tests.evaluation.fakes.BoxVerifier"
SCORE = "score --prm prm --input "
ANNOTATE = "annotate sample --out out --model policy --template plain --problems "
PLAIN = " --policy policy --template plain --problems "

CASES = [
    # files that are not there, not files, empty or damaged
    (f"{PB} --data nowhere", "no ProcessBench file in nowhere: expected gsm8k, "),
    (f"{PB} --data samples.jsonl", "samples.jsonl:1: steps: got nothing .*expected a row of ProcessBench"),
    (f"{PB} --data no_rows", "math.jsonl has no rows"),
    (f"{MRB}nowhere.jsonl", "no file nowhere.jsonl"),
    (f"{MRB}empty.jsonl", "empty.jsonl has no rows, expected at least one JSON object"),
    (f"{MRB}text.jsonl", "text.jsonl:1: not JSON"),
    (f"{MRB}good", "good is a folder, expected one file; in it there are gsm8k.jsonl"),
    (f"{PMB}nowhere.jsonl", "no file nowhere.jsonl"),
    (f"{PMB}table.csv", "table.csv: expected a .jsonl, .jsonl.gz, .json, .parquet file"),
    (f"{RMB}rmb", "broken.json is not JSON"),
    (f"{RMB}rmb/broken.json", "broken.json is not JSON"),
    (f"{RMB}rmb/none.json", "none.json has no rows"),
    (f"{SCORE}nowhere.jsonl", "no file nowhere.jsonl"),
    (f"{SCORE}good", "good is a folder"),
    (f"{SCORE}empty.jsonl", "empty.jsonl has no rows, expected at least one rollout"),
    (f"{SCORE}no_parquet.parquet", "no_parquet.parquet is no readable parquet file"),
    (f"{SCORE}no_zip.jsonl.gz", "no_zip.jsonl.gz is damaged"),
    (f"{BON} --samples nowhere.jsonl", "no file nowhere.jsonl"),
    (f"{BON} --samples empty.jsonl", "empty.jsonl has no rows"),
    (f"{AUDIT} --samples nowhere.jsonl", "no file nowhere.jsonl"),
    (f"{AUDIT} --samples samples.jsonl --processbench nowhere", "no ProcessBench file in nowhere"),
    (f"{BON}{PLAIN}nowhere.jsonl", "no file nowhere.jsonl"),
    (f"{BON}{PLAIN}text.jsonl", "text.jsonl:1: not JSON"),
    (f"{BON}{PLAIN}empty.jsonl", "empty.jsonl has no rows"),
    (f"{BON}{PLAIN}empty.csv", "dataset:? empty.csv.*(empty|no rows)"),
    (f"{BON}{PLAIN}no-such-org/no-such-set", "neither a local .*nor loadable from the Hub"),
    (f"{ANNOTATE}nowhere.jsonl", "no file nowhere.jsonl"),
    (f"{ANNOTATE}empty.jsonl", "empty.jsonl has no rows"),
    (f"{ANNOTATE}good", "good is a folder|no file good"),
    (f"{ANNOTATE}text.jsonl", "the only row cannot be used, to begin with text.jsonl:1: not JSON"),
    # rows
    (f"{PB} --data label_999", r"math.jsonl:2: label: got 999, expected a whole number from -1 to 1, the first wrong"),
    (f"{PB} --data label_minus_2", "label: got -2"),
    (f"{PB} --data label_true", "label: got True"),
    (f"{PB} --data no_steps", r"steps: got \[\], expected a list of texts"),
    (f"{MRB}null_verdict.jsonl", "Model_Solution_Correctness: got None, expected a text; expected a row of MR-Ben"),
    (
        f"{MRB}step_0.jsonl",
        "First_Error_Step: got '0', expected a whole number from 1 to 2",
    ),
    (f"{MRB}step_99.jsonl", "First_Error_Step: got '99', expected a whole number from 1 to 2"),
    (f"{MRB}no_step.jsonl", "First_Error_Step: got None"),
    (f"{PMB}error_0.jsonl", "error_steps: got 0, expected a whole number from 1"),
    (f"{PMB}no_errors.jsonl", "error_steps: got None, expected a list"),
    (f"{RMB}samples.jsonl", r"samples.jsonl:1: prompt: got nothing \(the columns are completions, problem, solution\)"),
    (f"{BON} --samples one_text.jsonl", "completions: got 'good', expected a list of texts"),
    (f"{BON} --samples no_gold.jsonl", "no gold answer in solution or answer"),
    (
        f"{BON} --samples samples.jsonl --problem-column query",
        "no problem: got nothing, expected a text in the col",
    ),
    (f"{FIRST} nowhere.jsonl", "no file nowhere.jsonl"),
    (f"{FIRST} one_text.jsonl", "completions: got 'good', expected a list of texts"),
    (f"{FIRST} no_gold.jsonl", "no gold answer in solution or answer"),
    (f"{CHOICE} empty.jsonl", "empty.jsonl has no rows"),
    (f"{CHOICE} one_text.jsonl", "completions: got 'good', expected a list of texts"),
    (f"{SEARCH}policy --problem-column query", "no problem: got nothing, expected a text in the column 'query'"),
    (f"{AUDIT} --samples short_errors.jsonl", r"first_errors: got \[0\], expected one for each of 8 completions"),
    (
        f"{AUDIT} --samples late_errors.jsonl",
        "first error 9 of a completion with 2 steps; are they cut at",
    ),
    (f"{SCORE}problems.jsonl --problem-column query", "no problem: got nothing, expected a text in the column 'query'"),
    (
        f"{SCORE}other_columns.jsonl",
        r"problem or prompt or question \(--problem-column names another\)",
    ),
    (
        f"{BON}{PLAIN}other_columns.jsonl",
        "other_columns.jsonl:1: no problem: got nothing",
    ),
    (
        f"{BON}{PLAIN}problems.jsonl --solution-column gold",
        "none of 1 rows has a gold answer in 'gold'",
    ),
    (f"{ANNOTATE}other_columns.jsonl", "the only row cannot be used, to begin with other_columns.jsonl:1: no problem"),
    (f"{ANNOTATE}problems.jsonl --solution-column gold", "problems.jsonl:1: no gold answer"),
    (f"{SCORE}samples.jsonl", "completions: 8 of 8 texts have several steps, .*expected the steps of one solution"),
    (
        f"{ANNOTATE.replace('sample', 'monte-carlo')}problems.jsonl",
        "monte_carlo: there are no solutions in out yet",
    ),
    (f"{ANNOTATE.replace('sample', 'consensus')}problems.jsonl --judge-model m", "there are no solutions in out yet"),
    # what does not go together
    (f"{PB} --data math_only --threshold gsm8k", "threshold 'gsm8k' needs that subset, got only math"),
    (f"{PB} --data good --threshold high", "threshold 'high' needs that subset, got only gsm8k"),
    (f"{PB} --data good --threshold nan", "--threshold: got 'nan', expected a number"),
    (f"{BON} --samples samples.jsonl --n 2 16", "--n 16: row 1 has 8 samples in samples.jsonl; give --n 8 or fewer"),
    (f"{BON} --samples samples.jsonl --n 0", "--n: got '0', expected a whole number of at least 1"),
    (f"{BON}{PLAIN}problems.jsonl --n 4 --num-samples 2", "--num-samples 2 are fewer than --n 4"),
    (BON, "expected either --samples FILE or --policy MODEL"),
    (f"{BON} --policy policy --template plain", "--problems is needed to sample from a policy"),
    (f"{AUDIT} --samples samples.jsonl --n 16", "--n 16: the rows have at most 8 samples"),
    (f"{AUDIT} --samples samples.jsonl --categories 3", "--categories needs --policy"),
    (f"{AUDIT}{PLAIN}problems.jsonl --categories 1", "--categories 1: expected 0 for none, or at least 2"),
    (f"{MRB}nowhere.jsonl --threshold inf", "--threshold: got 'inf', expected a number"),
    (f"{SEARCH}policy --final-pattern (", "is not a regular expression"),
    (f"{SCORE}solutions.jsonl --output solutions.jsonl", "is the input, expected another file"),
    (f"{SCORE}solutions.jsonl --chunk 0", "--chunk: got '0'"),
    (f"{PB} --data good --thresh 0.4", "unrecognized arguments: --thresh"),
    (f"{AUDIT} --sampl samples.jsonl", "unrecognized arguments: --sampl"),
    (f"{SCORE}solutions.jsonl --outp x", "unrecognized arguments: --outp"),
    (f"{ANNOTATE}problems.jsonl --num-resp 3", "unrecognized arguments: --num-resp"),
    ("annotate all --config broken.yaml --out out", "broken.yaml is not YAML: .*line 2"),
    ("annotate all --config list.yaml --out out", "list.yaml: got a list, expected a mapping"),
    ("annotate all --config judge.yaml --out out", "judge: got 'big-model', expected a mapping such as {model: …}"),
    ("annotate all --config policies.yaml --out out", "policies: got .*expected a list of mappings such as {model: …}"),
    (f"{ANNOTATE}problems.jsonl --push-to-hub me/x", "sample writes no labels"),
    (f"{ANNOTATE}problems.jsonl --verifier no.such.Verifier", "verifier 'no.such.Verifier' cannot be imported"),
    (f"{BON.partition(' --verifier')[0]} --samples samples.jsonl --verifier mathe", "unknown verifier 'mathe'"),
    # models that are not there
    *(
        (f"{command} --prm {prm} {rest}", f"--prm {prm} cannot be loaded: expected a folder with a saved model")
        for prm in ("nowhere/prm", "./nowhere", "odd_config")
        for command, rest in [
            ("evaluate processbench", "--data good"),
            ("evaluate best_of_n", "--samples samples.jsonl"),
            ("audit", "--samples samples.jsonl"),
            ("score", "--input solutions.jsonl"),
        ]
    ),
    ("evaluate processbench --prm no_weights --data good", "--prm no_weights cannot be loaded"),
    ("evaluate processbench --prm prm --family odd --data good", "family='odd' is unknown"),
    ("audit --prm prm nowhere/prm --samples samples.jsonl", "--prm nowhere/prm cannot be loaded"),
    (f"{SEARCH}nowhere/policy", "model nowhere/policy cannot be loaded"),
    (
        "annotate sample --out out --model nowhere/m --template plain --problems problems.jsonl",
        "sample-0: model nowh",
    ),
    (
        "annotate sample --out out --model nowhere/m --problems problems.jsonl",
        "sample-0: model nowhere/m cannot be",
    ),
    (f"{BON}{PLAIN}problems.jsonl --endpoint http://127.0.0.1:9/v1", "no endpoint of 'policy' can be reached"),
    (f"{ANNOTATE}problems.jsonl --endpoint http://127.0.0.1:9/v1", "sample-0: no endpoint of 'policy' can be reached"),
    # places that cannot be written
    (f"{PB} --data good --output a_file/x.json", "--output a_file/x.json cannot be written .*choose another place"),
    (f"{PB} --data good --output good", "--output good is a folder, expected the name of a file"),
    (f"{AUDIT} --samples samples.jsonl --page a_file/x.html", "--page a_file/x.html cannot be written"),
    (f"{SCORE}solutions.jsonl --output a_file/x.jsonl", "--output a_file/x.jsonl cannot be written"),
    (
        "annotate sample --out a_file --model policy --template plain --problems problems.jsonl",
        "--out a_file cannot be made a folder .File exists",
    ),
]


def run(command: str, capsys) -> tuple[int, list[str]]:
    """Exit status, and what stderr says."""
    try:
        status = main(command.split())
    except SystemExit as stopped:  # argparse's own
        status = stopped.code
    return status, capsys.readouterr().err.strip().splitlines()


@pytest.mark.parametrize(("command", "message"), CASES, ids=[command for command, _ in CASES])
def test_one_line_before_any_long_work(place, monkeypatch, capsys, command, message):
    def begun(*args, **kwargs):
        raise AssertionError("a model was loaded although the error could be seen before")

    monkeypatch.chdir(place)
    monkeypatch.setattr(PRMScorer, "__init__", begun)
    if "step_search" not in command or "nowhere" not in command:
        monkeypatch.setattr(HFGenerator, "__init__", begun)
    status, lines = run(command, capsys)
    assert status in (1, 2)
    (error,) = [line for line in lines if re.match(r"rlhf-prm.*: error: ", line)]
    assert re.search(message, error), lines
    assert lines[0] == error or lines[0].startswith("usage: ")
    assert len(lines) == 1 or "usage: " in lines[0] or "one of:" in lines[0]
    shutil.rmtree(place / "out", ignore_errors=True)


@pytest.mark.parametrize(
    "command",
    [
        f"{SCORE}solutions.jsonl --output scored.jsonl",
        f"{PB} --data good --output results.json",
        "annotate monte-carlo --out full --model m --template plain --backend tests.evaluation.fakes.plugged "
        "--verifier tests.evaluation.fakes.BoxVerifier --solutions solutions.jsonl",
    ],
)
def test_a_full_disk_is_one_line_too(place, monkeypatch, capsys, command):
    """A limit of 1 byte per file stands for the full disk: the write fails in the same place."""
    monkeypatch.chdir(place)
    monkeypatch.setattr("rlhf_prm.command_line.tempfile.NamedTemporaryFile", lambda dir: nullcontext())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    try:
        status = main(command.split())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert status == 1 and len(lines) == 1 and "File too large" in lines[0], lines
    assert "finished work is kept" in lines[0] or "annotate" not in command
    assert not (place / "scored.jsonl").exists()  # only whole results get their name


def test_separators_mean_the_same_everywhere(place, monkeypatch, capsys):
    r"""``\n`` is a line break for every command, and a character beyond ASCII stands for itself."""
    monkeypatch.chdir(place)
    for typed, sign in (("\\n", "\n"), ("§", "§"), ("\\n→\\t", "\n→\t"), ("\\\\", "\\")):
        steps = ["good 1", "bad 2", "3"]
        rollout = {"problem": "step", "completion": sign.join(steps), "solution": "1"}
        sampled = {"problem": "step", "completions": [rollout["completion"]], "solution": "1"}
        given = {"problem": "step", "response": rollout["completion"], "answer": "1"}
        for name, row in (("rollouts", rollout), ("sampled", sampled), ("given", given)):
            (place / f"{name}.jsonl").write_text(json.dumps(row))
        shutil.rmtree(place / "labels", ignore_errors=True)
        common = ["--separator", typed]
        assert main([*f"{SCORE}rollouts.jsonl --output scored.jsonl".split(), *common]) == 0
        assert len(json.loads((place / "scored.jsonl").read_text())["step_scores"]) == 3
        assert (
            main([*f"{AUDIT} --samples sampled.jsonl --n 1 --threshold -1 --output audit.json".split(), *common]) == 0
        )
        (example,) = json.loads((place / "audit.json").read_text())["audits"][0]["examples"]
        assert example["steps"] == steps
        plugged = "--template plain --backend tests.evaluation.fakes.plugged --out labels --solutions given.jsonl"
        verifier = "--model m --verifier tests.evaluation.fakes.BoxVerifier --go-on"
        assert main(["annotate", "monte-carlo", *plugged.split(), *verifier.split(), *common]) == 0
        assert json.loads((place / "labels" / "monte_carlo.jsonl").read_text())["completions"] == steps
