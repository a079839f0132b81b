"""Recipes whose scorer reads tokens: a teacher, an implicit PRM (resumed, compared, as an adapter), the own start."""

import json
import runpy
import sys
from pathlib import Path

import jaxtyping
import pytest
from trl import ModelConfig

from rlhf_prm.runs.arguments import RecipeArguments
from rlhf_prm.runs.sources import refuse_revision
from rlhf_prm.runs.token_scorers import kind_of, loads_the_policy, token_scorer
from rlhf_prm.toyworld import ToyWorldSettings, build_world
from tests.runs.test_prm_refresh import ROOT, WORLD
from tests.tiny import tiny_config

pytestmark = pytest.mark.usefixtures("empty_pages")
TIMED = ("seconds", "step_time", "train_", "_per_second")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("token-scorers")


@pytest.fixture
def recipe(monkeypatch, cache):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the argument parser fills transformers' fields

    def run(folder: Path, prm: str, method: str, kwargs: dict | None = None, *flags: str) -> list[dict]:
        settings = ["--world_settings", json.dumps(WORLD), "--prm", prm, "--method", method, "--max_steps", "3"]
        paths = ["--stage_cache", str(cache), "--output_dir", str(folder), "--baseline", "none", "--ceiling", "false"]
        more = [
            "--check_prm",
            "false",
            "--eval_every",
            "0",
            "--logging_steps",
            "1",
            "--prm_kwargs",
            json.dumps(kwargs or {}),
        ]
        more += ["--per_device_train_batch_size", "16", "--num_generations", "4"]
        monkeypatch.setattr(sys, "argv", ["grpo_prm.py", *settings, *paths, *more, *flags])
        runpy.run_path("recipes/grpo_prm.py", run_name="recipe")["main"]()
        return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]

    return run


def world_of(cache):
    return build_world(ToyWorldSettings(**WORLD), cache, with_prm=False)


def numbers(rows: list[dict]) -> list[dict]:
    return [{k: v for k, v in row.items() if not any(t in k for t in TIMED)} for row in rows]


def test_a_teacher_that_is_the_student_says_nothing_at_first(recipe, cache, tmp_path, capsys):
    logs = recipe(tmp_path, f"teacher:{world_of(cache).policy_path}", "distil")
    assert abs(logs[0]["teacher/kl"]) < 1e-5 and "0.000 nats per token apart" in capsys.readouterr().out
    trained = [row for row in logs if "loss" in row]
    assert abs(trained[0]["process/token_score/mean"]) < 1e-5  # the first rollouts are the teacher's own
    assert trained[2]["process/token_score/abs_max"] > 1e-4  # then the student has moved


def test_an_implicit_prm_learns_and_a_resumed_run_is_the_same(recipe, tmp_path):
    kwargs = {"learning_rate": 1e-3, "order": "after"}
    saved = ("--save_strategy", "steps", "--save_steps", "2")
    logs = recipe(tmp_path, "implicit", "prime", kwargs, *saved, "--baseline", "prime")
    trained = [row for row in logs if "loss" in row]
    assert trained[0]["process/token_score/abs_max"] == 0.0 and trained[1]["process/token_score/abs_max"] > 0
    assert trained[0]["prm/implicit_loss"] == pytest.approx(0.6931, abs=1e-3)
    again = recipe(
        tmp_path, "implicit", "prime", kwargs, *saved, "--resume_from_checkpoint", str(tmp_path / "checkpoint-2")
    )
    assert numbers(again) == numbers(logs)
    beside = [json.loads(line) for line in (tmp_path / "baseline" / "metrics.jsonl").read_text().splitlines()]
    assert beside[0]["process/token_score/abs_max"] == 0.0  # it starts from the first φ, too


def test_an_adapter_beside_the_policys(recipe, tmp_path):
    lora = {"r": 4, "target_modules": ["q_proj", "v_proj"]}
    peft = ("--use_peft", "true", "--lora_r", "4", "--lora_target_modules", "q_proj", "v_proj")
    kwargs = {"lora": lora, "base": "policy", "learning_rate": 1e-2, "order": "after"}
    saved = ("--save_strategy", "steps", "--save_steps", "2")
    logs = recipe(tmp_path, "implicit", "trusted_tokens", kwargs, *peft, *saved)
    trained = [row for row in logs if "loss" in row]
    assert len(trained) == 3 and trained[2]["process/token_score/abs_max"] > 0 and trained[2]["grad_norm"] > 0
    resumed = ("--resume_from_checkpoint", str(tmp_path / "checkpoint-2"))
    again = recipe(tmp_path, "implicit", "trusted_tokens", kwargs, *peft, *saved, *resumed)
    assert numbers(again) == numbers(logs)  # both adapters come back


def test_the_policys_own_start(recipe, tmp_path):
    logs = [row for row in recipe(tmp_path, "self", "spro") if "loss" in row]
    assert abs(logs[0]["process/token_score/mean"]) < 1e-5 and logs[2]["process/token_score/abs_max"] > 1e-4
    assert not any("teacher/kl" in row for row in logs)


def test_which_prms_are_read_by_tokens():
    assert [kind_of(name) for name in ("teacher:x", "implicit", "implicit:y", "self", "Qwen/PRM", None)] == [
        "teacher", "implicit", "implicit", "self", None, None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("prm", "kwargs", "more", "told"),
    [
        ("teacher", {}, {}, "expected teacher:NAME"),
        ("teacher:/nowhere", {}, {}, "prm: cannot load '/nowhere'"),
        ("self", {"beta": 1}, {}, "no keyword 'beta'; expected some of device"),
        ("implicit", {"betta": 1}, {}, "no keyword 'betta'; expected some of reference, lora, base, beta"),
        ("implicit", {"order": "never"}, {}, "order: got 'never'"),
        ("implicit", {"base": "policy"}, {}, "without lora"),
        ("implicit", {"lora": {"rank": 3}}, {}, "prm_kwargs: lora:"),
        ("implicit", {"lora": {"r": 2}, "base": "own"}, {}, "got base 'own', expected 'policy'"),
        ("implicit", {"lora": {"r": 2}, "reference": "sft"}, {}, "no keyword 'reference'"),
        ("implicit", {"lora": {"r": 2}, "base": "policy", "device": "cpu"}, {}, "no keyword 'device'"),
        ("implicit:sft", {"lora": {"r": 2}, "base": "policy"}, {}, "got implicit:sft beside base 'policy'"),
        ("implicit", {"lora": {"r": 2}}, {"prm_placement": "offload"}, "got 'offload' beside lora"),
        ("self", {"temperature": 0.5}, {}, "no keyword 'temperature'"),
        ("self", {}, {"prm_family": "qwen_prm"}, "which is read by tokens"),
        ("self", {}, {"prm_placement": "server"}, "expected one of replicate, offload, zero3"),
    ],
)
def test_what_cannot_be_is_said(cache, prm, kwargs, more, told):
    from transformers import AutoTokenizer

    path = str(world_of(cache).policy_path)
    arguments = RecipeArguments(prm=prm, prm_kwargs=kwargs, **more)
    with pytest.raises(ValueError, match=told):
        token_scorer(arguments, path, AutoTokenizer.from_pretrained(path), None)


@pytest.mark.parametrize(
    ("prm", "prm_kwargs", "loads"),
    [
        (None, {}, False),
        ("self", {}, True),
        ("teacher:t", {}, False),
        ("implicit", {"reference": "r"}, True),
        ("implicit:m", {}, True),
        ("implicit:m", {"reference": "r"}, False),
        ("implicit", {"lora": {"r": 2}}, True),
        ("implicit", {"lora": {"r": 2}, "base": "policy"}, False),
    ],
)
def test_which_scorers_load_the_policy_again(prm, prm_kwargs, loads):
    assert loads_the_policy(RecipeArguments(prm=prm, prm_kwargs=prm_kwargs)) is loads


def test_another_revision_is_refused_beside_a_reference_of_main(tmp_path):
    """Adapters have no reference model beside them, and without beta there is none."""
    recipe, other = RecipeArguments(), ModelConfig(model_revision="v1")
    with pytest.raises(ValueError, match=r"model_revision: got 'v1' beside beta 0.1"):
        refuse_revision(recipe, tiny_config(tmp_path, beta=0.1), other)
    with pytest.raises(ValueError, match="model_revision: got 'v1' beside prm 'self'"):
        refuse_revision(RecipeArguments(prm="self"), tiny_config(tmp_path), other)
    refuse_revision(recipe, tiny_config(tmp_path, beta=0.1), ModelConfig())
    refuse_revision(recipe, tiny_config(tmp_path, beta=0.1), ModelConfig(model_revision="v1", use_peft=True))
    refuse_revision(recipe, tiny_config(tmp_path), other)
