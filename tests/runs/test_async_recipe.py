"""recipes/async_grpo_prm.py: its config parses, and trains on a CPU with a policy and a PRM behind servers."""

import json
import runpy
import sys
from pathlib import Path

import jaxtyping
import pytest
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.chat_template_utils import qwen2_5_chat_template
from trl.experimental.async_grpo import AsyncGRPOConfig

from rlhf_prm.prm.qwen2 import Qwen2ForProcessRewardModel
from rlhf_prm.runs.arguments import parse
from rlhf_prm.runs.asynchronous import AsyncArguments, train_asynchronously
from tests.prm.pooling_server import PoolingServer
from tests.prm.prm_checkpoints import qwen_prm
from tests.rl.async_stand_ins import Server, on_a_cpu
from tests.tiny import tiny_policy, tiny_tokenizer

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "recipes" / "configs" / "async_qwen2.5-math-1.5b_prm-7b.yaml"
# All that is overridden: names, device, lengths, how often is saved.
SMALL = {"use_cpu": "true", "bf16": "false", "max_completion_length": "5", "max_steps": "2", "report_to": "none"}


@pytest.fixture
def recipe(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    monkeypatch.chdir(ROOT)

    def run(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["async_grpo_prm.py", *arguments])
        runpy.run_path("recipes/async_grpo_prm.py", run_name="recipe")["main"]()

    return run


def test_the_config_parses(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    classes = runpy.run_path(str(ROOT / "recipes" / "async_grpo_prm.py"), run_name="recipe")["ARGUMENTS"]
    monkeypatch.setattr(sys, "argv", ["recipe", "--config", str(CONFIG), "--use_cpu", "true"])
    arguments, config = parse(classes)
    given = yaml.safe_load(CONFIG.read_text())
    for name, value in given.items():
        assert getattr(arguments if hasattr(arguments, name) else config, name) == value, name
    scorer = arguments.credit().scorer
    assert scorer.args == (given["prm"],) and scorer.keywords["server_url"] == given["prm_server_url"]


def test_two_updates_and_the_policy_is_saved(recipe, tmp_path):
    """The shipped batch sizes, method and rates; the worker's loop in a thread of this process."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = qwen2_5_chat_template
    tiny_policy(max_position_embeddings=256).save_pretrained(tmp_path / "policy")
    tokenizer.save_pretrained(tmp_path / "policy")
    qwen_prm(tmp_path / "prm")
    prm, of_prm = (
        Qwen2ForProcessRewardModel.from_pretrained(tmp_path / "prm"),
        AutoTokenizer.from_pretrained(tmp_path / "prm"),
    )
    problems = tmp_path / "problems.jsonl"
    problems.write_text("".join(json.dumps({"problem": f" {i} +", "solution": f"{i}"}) + "\n" for i in range(10)))
    with (
        Server(tiny_policy(max_position_embeddings=256), tokenizer.eos_token_id) as server,
        PoolingServer(prm, of_prm.convert_tokens_to_ids("<extra_0>")) as pooling,
        on_a_cpu(in_a_thread=True, weight_transfer=server),
    ):
        overrides = SMALL | {
            "model_name_or_path": str(tmp_path / "policy"),
            "prm": str(tmp_path / "prm"),
            "prm_server_url": pooling.url,
            "dataset": str(problems),
            "vllm_server_base_url": server.url,
            "output_dir": str(tmp_path / "run"),
        }
        recipe("--config", str(CONFIG), *(word for name, value in overrides.items() for word in (f"--{name}", value)))
    logs = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    logs = [row for row in logs if "loss" in row]
    assert [row["step"] for row in logs] == [1, 2]
    assert all(row["batch/samples_per_step"] == 128 and row["process/unscored_frac"] == 0 for row in logs)
    assert 0 < logs[0]["process/step_score/mean"] < 1 and pooling.requests
    policy = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "policy")
    assert any(
        (new != old).any()
        for new, old in zip(policy.parameters(), tiny_policy(max_position_embeddings=256).parameters(), strict=True)
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "model_name_or_path: got nothing"),
        ({"model_name_or_path": "a"}, "dataset: got nothing"),
        ({"model_name_or_path": "a", "dataset": "b", "prm": "c"}, "prm_server_url: got nothing for prm 'c'"),
    ],
)
def test_what_is_missing_is_named(given, message):
    with pytest.raises(ValueError, match=message):
        AsyncArguments(**given)


def test_a_method_that_a_worker_cannot_serve_and_a_judge(monkeypatch):
    named = {"model_name_or_path": "a", "dataset": "b"}
    with pytest.raises(ValueError, match="'trusted' remembers whole batches"):
        AsyncArguments(**named, method="trusted").credit()
    judged = AsyncArguments(**named, prm="judge:Org/J", prm_kwargs={"endpoint": "http://h:8000/v1"}).credit()
    with pytest.raises(ValueError, match="got budget_calls, expected none: a budget is for one update"):
        AsyncArguments(**named, prm="judge:Org/J", prm_kwargs={"budget_calls": 3}).credit()
    assert judged.scorer.args == ("judge:Org/J",) and judged.scorer.keywords == {"endpoint": "http://h:8000/v1"}


def test_true_resumes_from_the_newest_checkpoint(tmp_path):
    arguments = AsyncArguments(model_name_or_path="a", dataset="b", method="outcome")
    config = AsyncGRPOConfig(str(tmp_path), use_cpu=True, bf16=False, report_to="none", resume_from_checkpoint="true")
    with pytest.raises(ValueError, match="resume_from_checkpoint: no checkpoint in"):
        train_asynchronously(arguments, config)


def test_without_arguments_the_recipe_says_what_it_needs(recipe):
    with pytest.raises(SystemExit, match="--config: got none, and none of --dataset"):
        recipe()
