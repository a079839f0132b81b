"""``rlhf-prm preflight --prm teacher:NAME``: log-ratios of two models on texts, against one forward pass a step."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf_prm.cli import main
from rlhf_prm.preflight.teacher import teacher_on_texts
from tests.evaluation.conftest import SIZES, tiny_tokenizer
from tests.tiny_models import saved

VERIFIER = ("--verifier", "tests.evaluation.fakes.BoxVerifier")


@pytest.fixture(scope="module")
def teacher_folder(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("teacher"), tiny_tokenizer(), **SIZES | {"initializer_range": 0.3})


def slow_score(teacher, policy, prompt, steps):
    """σ of the summed log-ratio up to the end of each step, a forward pass of each model and step."""
    tokenizer = AutoTokenizer.from_pretrained(policy)
    found = []
    for k in range(1, len(steps) + 1):
        text = "\n\n".join(steps[:k]) + ("\n\n" if k < len(steps) else "")  # a step ends with its separator
        ids, answer = tokenizer(prompt).input_ids, tokenizer(text, add_special_tokens=False).input_ids
        total = 0.0
        for sign, name in ((1, teacher), (-1, policy)):
            logits = AutoModelForCausalLM.from_pretrained(name)(torch.tensor([ids + answer])).logits[0]
            logs = logits.log_softmax(-1)[len(ids) - 1 : -1]
            total += sign * logs.gather(1, torch.tensor(answer)[:, None]).sum().item()
        found.append(torch.tensor(total).sigmoid().item())
    return found


def test_a_step_is_scored_by_the_ratio_up_to_its_end(teacher_folder, policy_folder):
    scorer = teacher_on_texts(str(teacher_folder), str(policy_folder), lambda p: f"{p} good ", "\n\n", 1.0)
    rows = [["step 1", "good 2", "\\boxed{3}"], ["bad"]]
    scores = scorer.score(["step 4", "step 5"], rows)
    for problem, row, found in zip(("step 4", "step 5"), rows, scores, strict=True):
        assert found == pytest.approx(slow_score(teacher_folder, policy_folder, f"{problem} good ", row), abs=1e-5)
    assert max(abs(score - 0.5) for score in scores[0]) > 0.01  # the two models differ


def test_the_command(teacher_folder, policy_folder, tmp_path, capsys):
    dataset = tmp_path / "data.jsonl"
    dataset.write_text("\n".join(json.dumps({"prompt": f"step {k}", "solution": str(k)}) for k in range(3)))
    page = tmp_path / "page.html"
    arguments = ["preflight", "--dataset", str(dataset), "--template", "plain", *VERIFIER, "--output", str(page)]
    sizes = ["--max-tokens", "8", "--n", "2", "--probe-problems", "1"]
    assert main([*arguments, *sizes, "--model", str(policy_folder), "--prm", f"teacher:{teacher_folder}"]) == 0
    found = json.loads(page.with_suffix(".json").read_text())
    assert found["prm"] == f"teacher:{teacher_folder}" and found["measures"]["unscored_share"] == 0
    samples = ["preflight", "--samples", str(page.with_suffix(".samples.jsonl")), *VERIFIER, "--template", "plain"]
    samples += ["--prm", f"teacher:{teacher_folder}", "--output", str(tmp_path / "again.html"), "--probe-problems", "1"]
    assert main(samples) == 2 and "is read against the policy" in capsys.readouterr().err
    assert main([*samples, "--prm-kwargs", json.dumps({"policy": str(policy_folder)})]) == 0
    again = json.loads((tmp_path / "again.json").read_text())
    assert again["measures"]["auroc_min"] == found["measures"]["auroc_min"]


@pytest.mark.parametrize("prm", ["implicit", "implicit:somewhere", "self"])
def test_what_starts_as_the_policy_has_nothing_to_measure(prm, policy_folder, tmp_path, capsys):
    (tmp_path / "data.jsonl").write_text('{"prompt": "1", "solution": "1"}')
    arguments = ["--model", str(policy_folder), "--dataset", str(tmp_path / "data.jsonl"), "--prm", prm]
    assert main(["preflight", *arguments]) == 2
    assert "every score is 1/2 before training" in capsys.readouterr().err


def test_what_is_wrong_is_told_before_anything_is_sampled(teacher_folder, policy_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("rlhf_prm.preflight.sources.from_policy", lambda *a, **k: pytest.fail("sampled"))
    (tmp_path / "data.jsonl").write_text('{"prompt": "1", "solution": "1"}')
    arguments = ["preflight", "--model", str(policy_folder), "--dataset", str(tmp_path / "data.jsonl")]
    assert main([*arguments, "--prm", f"teacher:{teacher_folder}", "--prm-kwargs", '{"votes": 4}']) == 2
    assert "no keyword 'votes'" in capsys.readouterr().err
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["another"])
    wider = saved(tmp_path / "wider", tokenizer, **SIZES)
    arguments[2] = str(wider)
    assert main([*arguments, "--prm", f"teacher:{teacher_folder}"]) == 2
    assert "for token 'another'" in capsys.readouterr().err
