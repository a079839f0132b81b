"""The whole way on a real tokenizer and a real model: what tiny models and made-up tokenizers cannot show."""

import json
import runpy
import sys
import threading
from pathlib import Path

import jaxtyping
import pytest
import torch

from reward import METHODS
from rlhf_prm.cli import main
from rlhf_prm.evaluation.processbench import load_processbench, processbench
from rlhf_prm.files import read_json_lines, write_json_lines
from rlhf_prm.generation.prefixes import sampled_prefixes
from rlhf_prm.preflight.run import PreflightSettings, preflight
from rlhf_prm.prm import load_prm
from rlhf_prm.step_data import read_rows
from rlhf_prm.steps import StepSplitter, tokens_until
from rlhf_prm.tokenizer_checks import check_policy
from rlhf_prm.toyworld.prm_check import checked_samples
from rlhf_prm.wordproblems.sampler import TextSampler, load_policy
from tests.annotate.annotate_server import Server

pytestmark = [pytest.mark.real, pytest.mark.timeout(1800)]
ROOT = Path(__file__).resolve().parents[2]
SHORT = (
    *("--max_steps", "3", "--per_device_train_batch_size", "8", "--gradient_accumulation_steps", "1"),
    *("--max_completion_length", "64", "--eval_every", "0", "--eval_limit", "16"),
)


@pytest.fixture(scope="module")
def policy(real_world):
    return load_policy(real_world.policy_path)


@pytest.fixture(scope="module")
def prm(real_world):
    return load_prm(str(real_world.prm_path), dtype="bfloat16")


@pytest.fixture
def recipe(monkeypatch, real_world, real_settings, real_cache):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    monkeypatch.chdir(ROOT)

    def run(name: str, *arguments: str) -> None:
        config = (
            "recipes/configs/grpo_word_problems.yaml" if name == "grpo_prm.py" else "recipes/configs/ppo_toyworld.yaml"
        )
        world = ("--world_settings", json.dumps(real_settings), "--stage_cache", str(real_cache))
        monkeypatch.setattr(sys, "argv", [name, "--config", config, *SHORT, *world, *arguments])
        runpy.run_path(f"recipes/{name}", run_name="recipe")["main"]()

    return run


def test_the_tokenizer_knows_where_an_answer_ends(policy):
    model, tokenizer = policy
    check_policy(tokenizer, model)
    assert tokenizer.eos_token == "<|im_end|>" and tokenizer.pad_token_id is not None
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id


def test_the_policy_speaks_in_steps_that_end(real_world, policy):
    """After 24 updates it writes in the form it was shown: several steps, an answer in a box, and an end."""
    rows = read_json_lines(real_world.stages["solutions"].path / "rows.jsonl")
    ended = [row["ids"][-1] == policy[1].eos_token_id for row in rows]
    steps = [len(row["steps"]) for row in rows]
    assert sum(ended) > 0.7 * len(rows) and sum(n > 1 for n in steps) > 0.7 * len(rows)


def test_step_boundaries_on_real_text(real_world, policy):
    """Blank lines are one token in some places and two in others; step ends are found in both, ids stay as sampled."""
    tokenizer, splitter = policy[1], StepSplitter()
    texts = ["One.\n\nTwo 3*4=12.\n\nThe answer is \\boxed{12}.", "a\n\n\nb)\n\n c", "no blank line"]
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        ends = tokens_until(ids, tokenizer, [end for _, end in splitter.spans(text)])
        assert ends[-1] == len(ids) and ends == sorted(ends)
        for (_, end), tokens in zip(splitter.spans(text), ends, strict=True):
            assert tokenizer.decode(ids[:tokens]).startswith(text[:end])
    for row in read_json_lines(real_world.stages["solutions"].path / "rows.jsonl"):
        prefixes = sampled_prefixes(tokenizer, row["prompt_ids"], row["ids"], row["text"], splitter)
        assert prefixes is not None and prefixes.ids == row["ids"] and len(prefixes.ends) == len(row["steps"])


def test_the_policy_goes_on_from_its_own_tokens_not_from_a_look_alike(real_world, policy):
    """Behind a first step, text ending in a blank line is tokenized otherwise than the policy wrote it; what it really
    wrote next is likelier behind its own tokens."""
    model, tokenizer = policy
    own, look_alike = [], []
    for row in read_json_lines(real_world.stages["solutions"].path / "rows.jsonl"):
        prefixes = sampled_prefixes(tokenizer, row["prompt_ids"], row["ids"], row["text"], StepSplitter())
        if len(prefixes.ends) < 2:
            continue
        end = prefixes.ends[0]
        text = tokenizer.decode(row["ids"][:end])
        again = [*row["prompt_ids"], *tokenizer(text, add_special_tokens=False)["input_ids"]]
        if again != prefixes.prompt(0):
            following = row["ids"][end : end + 4]
            own.append(mean_log_probability(model, prefixes.prompt(0), following))
            look_alike.append(mean_log_probability(model, again, following))
    assert own, "this tokenizer reads every prefix as it was written"
    assert sum(own) > sum(look_alike)


def mean_log_probability(model, prompt: list[int], ids: list[int]) -> float:
    with torch.no_grad():
        logits = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1].float()
    return logits.log_softmax(-1).gather(-1, torch.tensor(ids)[:, None]).mean().item()


def test_grpo_with_dense_rewards(recipe, tmp_path):
    recipe("grpo_prm.py", "--output_dir", str(tmp_path))
    summary = json.loads((tmp_path / "summary.json").read_text())
    losses = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert summary["method"] in METHODS and len([row for row in losses if "loss" in row]) == 3
    assert (tmp_path / "report.html").exists()


def test_killed_and_resumed(recipe, tmp_path):
    """Stopped after update 2 of 3, a run goes on there, from the checkpoint's weights."""
    recipe("grpo_prm.py", "--output_dir", str(tmp_path), "--save_strategy", "steps", "--save_steps", "2", "--prm",
           "oracle", "--prm_kwargs", "{}", "--max_steps", "2")  # fmt: skip
    recipe("grpo_prm.py", "--output_dir", str(tmp_path), "--prm", "oracle", "--prm_kwargs", "{}",
           "--resume_from_checkpoint", "true")  # fmt: skip
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3]


def test_ppo(recipe, tmp_path):
    recipe(
        *("ppo_prm.py", "--world", "word_problems", "--output_dir", str(tmp_path), "--baseline", ""),
        *("--bf16", "true", "--learning_rate", "1e-5", "--prm", "oracle"),
    )
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len([row for row in rows if "loss" in row]) == 3


def problems_file(real_world, path: Path, count: int) -> Path:
    rows = real_world.eval_dataset.select(range(count))
    write_json_lines(path, [{"question": row["problem"], "answer": row["solution"]} for row in rows])
    return path


@pytest.mark.parametrize("where", ["in this process", "at an endpoint"])
def test_annotate(where, real_world, policy, tmp_path):
    """Sampling and Monte-Carlo labels; the endpoint is given the policy's own ids, as vLLM would be."""
    arguments = ["--problems", problems_file(real_world, tmp_path / "problems.jsonl", 2), "--out", tmp_path / "out"]
    arguments += ["--model", real_world.policy_path, "--template", "chat", "--num-responses", 2, "--max-tokens", 48]
    arguments += ["--num-completions", 2, "--seed", 1]
    if where == "in this process":
        annotate(arguments)
    else:
        with PolicyServer(*policy) as server:
            annotate([*arguments, "--endpoint", server.url])
        assert server.seen["none"] > 2
    rows = list(read_rows(tmp_path / "out" / "monte_carlo.jsonl"))
    assert rows and all(len(row["labels"]) <= len(row["completions"]) for row in rows)


def annotate(arguments: list) -> None:
    for stage in ("sample", "monte-carlo"):
        assert main(["annotate", stage, *map(str, arguments)]) == 0


class PolicyServer(Server):
    """The policy behind an OpenAI-compatible endpoint."""

    def __init__(self, model, tokenizer) -> None:
        super().__init__()
        self.sampler, self.one_at_a_time = TextSampler(model, tokenizer, max_new_tokens=48), threading.Lock()

    def texts(self, prompt, n, seed):
        with self.one_at_a_time:
            return [str(text) for text in self.sampler.generate([prompt], n, seed=seed)[0]]


def test_score_from_the_command_line(real_world, tmp_path):
    rows = real_world.held_out_solutions(2, 2)
    write_json_lines(tmp_path / "rows.jsonl", [{"problem": row["prompt"], "steps": row["completions"]} for row in rows])
    assert main(["score", "--prm", str(real_world.prm_path), "--input", str(tmp_path / "rows.jsonl")]) == 0
    for row in read_json_lines(tmp_path / "rows.scored.jsonl"):
        assert len(row["step_scores"]) == len(row["steps"]) and all(0 <= p <= 1 for p in row["step_scores"])


def test_preflight(real_world, prm):
    result = preflight(prm, checked_samples(real_world, 4, 4), PreflightSettings(probe_problems=1))
    assert result.verdict.kind in ("pay", "not to matter", "harm", "cannot tell")
    assert result.measures["accuracy"] is not None


def test_twenty_rows_of_processbench(shared_data, prm):
    """Published solutions, through the real tokenizer: every step gets a score."""
    items = {name: rows[:20] for name, rows in load_processbench(shared_data, ["gsm8k"]).items()}
    scores = prm.score([item.problem for item in items["gsm8k"]], [item.steps for item in items["gsm8k"]])
    assert [len(row) for row in scores] == [len(item.steps) for item in items["gsm8k"]]
    assert len({round(p, 3) for row in scores for p in row}) > 10
    assert 0 <= processbench(prm, items)["gsm8k"]["f1"] <= 1
