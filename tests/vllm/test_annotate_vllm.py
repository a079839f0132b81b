"""``vllm serve`` on a CPU labels toy problems: Monte-Carlo through /completions, a judge through /chat/completions."""

import json
import random
import sys
from pathlib import Path

import pytest
import torch
import toy_adder

from rlhf_prm.annotate.config import read_config
from rlhf_prm.annotate.pipeline import Pipeline
from rlhf_prm.generation.hf import HFGenerator
from rlhf_prm.generation.vllm import VLLMGenerator
from rlhf_prm.step_data import read_rows
from tests.distributed.launch import free_port
from tests.vllm.serving import ON_CPU, serving

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(2400)]
PATIENCE = {"deadline": 120.0}


@pytest.fixture(scope="module")
def adder(tmp_path_factory):
    pytest.importorskip("vllm")
    folder = tmp_path_factory.mktemp("adder")
    torch.set_num_threads(1)
    assert toy_adder.train(folder) < 0.05
    return folder


@pytest.fixture(scope="module")
def url(adder, tmp_path_factory):
    port = free_port()
    command = [str(Path(sys.executable).parent / "vllm"), "serve", str(adder), "--served-model-name", "adder"]
    command += ["--port", str(port), "--dtype", "float32", "--enforce-eager", "--max-model-len", "2048"]
    # On a CPU a seeded request whose prompt is read in several parts ends vLLM 0.31: room for eight whole prompts.
    command += ["--max-num-batched-tokens", "16384"]
    with serving(command, port, tmp_path_factory.mktemp("log") / "vllm.log") as url:
        yield f"{url}/v1"


def run(out, stages, **settings):
    pipeline = Pipeline(read_config(None, {"out": str(out), "num_completions": 4, "concurrency": 8, **settings}))
    for stage in stages:
        pipeline.run(stage)
    return pipeline


def test_samples_and_monte_carlo_labels(tmp_path, url):
    rng = random.Random(1)
    rows = [toy_adder.problem(rng) for _ in range(12)]
    problems = tmp_path / "problems.jsonl"
    problems.write_text("".join(json.dumps({"problem": p, "answer": gold}) + "\n" for p, _, gold in rows))
    policy = {"model": "adder", "endpoints": [url], "template": "plain", "max_tokens": 48, "options": PATIENCE}
    run(tmp_path / "out", ["sample", "monte_carlo"], problems=str(problems), policies=[policy], num_responses=2)
    labelled = list(read_rows(tmp_path / "out" / "monte_carlo.jsonl"))
    assert len(labelled) == 24
    golds = {p: gold for p, _, gold in rows}
    for row in labelled:
        assert row["labels"][-1] == (row["completions"][-1] == f"\\boxed{{{golds[row['prompt']]}}}")
    assert sum(all(row["labels"]) for row in labelled) >= 20  # the model adds well


def test_planted_errors_are_found(tmp_path, url):
    rng = random.Random(2)
    solutions, planted = [], []
    for i in range(24):
        text, steps, gold = toy_adder.problem(rng)
        steps, wrong = toy_adder.with_an_error(steps, rng) if i % 2 else (steps, -1)
        solutions.append({"problem": text, "answer": gold, "steps": steps})
        planted.append(wrong)
    path = tmp_path / "solutions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in solutions))
    model = {"model": "adder", "endpoints": [url], "template": "plain", "max_tokens": 48, "options": PATIENCE}
    boxed = {"structured_outputs": {"regex": r"\\boxed\{(-1|0|1)\}"}}  # it can add, not judge: any verdict will do
    pipeline = run(
        tmp_path / "out",
        ["monte_carlo", "judge"],
        solutions=str(path),
        completer=model,
        judge=model | {"extra_body": boxed},
        judge_form="processbench",
    )
    rows = list(read_rows(tmp_path / "out" / "monte_carlo.jsonl"))
    found = [row["labels"].index(False) if False in row["labels"] else -1 for row in rows]
    assert sum(a == b for a, b in zip(found, planted, strict=True)) >= 20
    judged = list(read_rows(tmp_path / "out" / "judge.jsonl"))
    assert len(judged) == 24
    report = pipeline.consensus()
    assert report.pairs == 24 and report.kept + report.dropped.total() == 24


def test_in_process(adder, monkeypatch):
    for name, value in ON_CPU.items():
        monkeypatch.setenv(name, value)
    generator = VLLMGenerator(
        str(adder), max_tokens=32, dtype="float32", enforce_eager=True, max_model_len=512, gpu_memory_utilization=0.1
    )
    prompts = ["6+2+1\n\n", "1+1+1\n\n1"]
    texts = generator.generate(prompts, 3, seed=[1, 2])
    assert texts == generator.generate(prompts, 3, seed=[1, 2]) and [len(row) for row in texts] == [3, 3]
    assert any("boxed{9}" in text for text in texts[0])
    assert generator.generate(prompts[:1], 1, seed=3, stop=["\n\n"]) == [["6+2=8"]]
    chat = [{"role": "user", "content": "6+2+1\n\n"}]
    assert generator.generate([chat], 1, seed=[1])[0][0] == generator.generate(prompts[:1], 1, seed=[1])[0][0]
    # What generative PRMs read: the probabilities of a verdict's words, as transformers has them.
    asked, words = ["6+2+1\n\n6+2=", "1+1+1\n\n1+1=2\n\n2+1="], ("8", "3")
    wanted = HFGenerator(str(adder)).choose(asked, words)
    for got, one in zip(generator.choose(asked, words), wanted, strict=True):
        assert got == pytest.approx(one, abs=1e-4)
    assert wanted[0][0] > 0.9 > 0.1 > wanted[1][0]
