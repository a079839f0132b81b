"""Plans of recipes as they are: every shipped recipe of a real model, its launch config, and published sizes."""

import json
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from rlhf_prm.cli import main
from rlhf_prm.judges import load
from rlhf_prm.plan import RunPlan, fits, memory_by_part, peak_bytes, seconds_by_part
from rlhf_prm.plan.memory import GB, autocast_copies, frozen_weights, host_memory, model_states
from rlhf_prm.plan.recipe import (
    JUDGE,
    LIVE_VALUES,
    PPO_DEFAULTS,
    PRM_DEFAULTS,
    RL_DEFAULTS,
    launch_settings,
    recipe_settings,
)
from rlhf_prm.plan.shapes import SHAPES, ModelShape, lora_parameters, published_shape
from rlhf_prm.plan.timing import GPUS
from rlhf_prm.runs import sources

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "recipes" / "configs"
REAL = [
    path
    for path in sorted(CONFIGS.glob("*.yaml"))
    if "/" in str(yaml.safe_load(path.read_text()).get("model_name_or_path", ""))
]
LAUNCH = {
    "qwen2.5-math-7b_prm-7b_zero3": ["--launch", "zero3"],
    "train_prm_qwen2.5-math-7b": ["--launch", str(ROOT / "recipes" / "accelerate" / "zero3_2x8.yaml")],
}
TINY = ModelShape(hidden=8, layers=2, heads=2, kv_heads=1, intermediate=16, vocab=10, tied=False)


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_every_shipped_recipe_of_a_real_model_is_planned_and_fits_where_it_says(path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # sizes of published models are known here
    assert main(["plan", "--config", str(path), "--json", *LAUNCH.get(path.stem, [])]) == 0
    said, recipe = json.loads(capsys.readouterr().out), yaml.safe_load(path.read_text())
    told = said["planned"]
    assert said["fits"], said["peak"]
    assert told["policy"] == recipe["model_name_or_path"]
    assert told["per_device_train_batch_size"] == recipe["per_device_train_batch_size"]
    assert told["gradient_accumulation_steps"] == recipe["gradient_accumulation_steps"]
    assert told["task"] == ("prm" if path.stem.startswith("train_prm") else "rl")


def test_ppo_is_told_from_grpo_by_any_setting_of_its_own(tmp_path):
    path = tmp_path / "recipe.yaml"
    critics = []
    for more in ({"lam": 0.95}, {"process_weight": 0.5}, {"critic": "own"}, {"method": "immediate"}):
        path.write_text(yaml.safe_dump({"model_name_or_path": "Qwen/Qwen2.5-Math-1.5B", **more}))
        critics.append(recipe_settings(path, 1)[0]["critic"])
    assert critics[0] == critics[1] == critics[2] != critics[3] == "none"
    path.write_text(yaml.safe_dump({"model_name_or_path": "Qwen/Qwen2.5-Math-1.5B", "train_samples": ["a.jsonl"]}))
    with pytest.raises(ValueError, match=r"got settings of train_pairs\.py, which cannot be planned"):
        recipe_settings(path, 1)


def test_there_are_such_recipes():
    assert {path.stem for path in REAL} >= {*LAUNCH, "qwen2.5-math-1.5b_prm-7b", "train_prm_qwen2.5-math-7b_lora"}


def test_what_was_planned_is_printed(capsys):
    recipe = CONFIGS / "qwen2.5-math-7b_prm-7b_zero3.yaml"
    assert main(["plan", "--config", str(recipe), "--launch", "zero3", "--gpu", "a100-80"]) == 0
    text = capsys.readouterr().out
    assert "8 × a100-80 of 80 GB, ZeRO-3" in text
    assert "micro-batch 4 × 16 accumulated × 8 GPUs = 512 rollouts of 256 + 2048 tokens per update" in text
    assert "Qwen/Qwen2.5-Math-7B-Instruct" in text and "vLLM with 35% of each GPU, asleep in training" in text


def test_flags_override_the_recipe(capsys):
    recipe = CONFIGS / "qwen2.5-math-1.5b_prm-7b.yaml"
    flags = ["--completion-tokens", "512", "--prm", "none", "--zero", "2", "--offload-optimizer"]
    assert main(["plan", "--config", str(recipe), "--json", *flags]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["planned"]["completion_tokens"] == 512 and "prm" not in told["planned"]
    assert told["host_memory_per_node"] == {"optimizer": int(1.5 * 16 * SHAPES["1.5B"].parameters)}


def test_defaults_are_those_of_the_trainers():
    from rlhf_prm.prm_training.config import PRMConfig
    from rlhf_prm.rl.config import ProcessGRPOConfig
    from rlhf_prm.rl.ppo_config import ProcessPPOConfig

    for config, defaults in (
        (ProcessGRPOConfig, RL_DEFAULTS),
        (ProcessPPOConfig, PPO_DEFAULTS),
        (PRMConfig, PRM_DEFAULTS),
    ):
        known = {field.name: field.default for field in fields(config)}
        assert {name: known[name] for name in defaults} == defaults, config


def test_ppo_and_peft_are_recognised(tmp_path):
    recipe = {"model_name_or_path": "Qwen/Qwen2.5-1.5B", "shaping": "delta_shaping", "beta": 0.1, "critic": "detached"}
    (tmp_path / "ppo.yaml").write_text(yaml.safe_dump(recipe))
    settings, names = recipe_settings(tmp_path / "ppo.yaml", gpus=2)
    assert (settings["critic"], settings["reference"], settings["prm"]) == ("shared", True, None)
    assert names == {"policy": "Qwen/Qwen2.5-1.5B"} and settings["rollouts"] == 16
    del recipe["critic"]
    (tmp_path / "ppo.yaml").write_text(yaml.safe_dump(recipe | {"use_peft": True, "lora_r": 8, "dtype": "bfloat16"}))
    settings, _ = recipe_settings(tmp_path / "ppo.yaml", gpus=1)
    assert (settings["critic"], settings["reference"], settings["frozen_bytes"]) == ("own", False, 2)
    assert settings["adapter_parameters"] == lora_parameters(SHAPES["1.5B"], 8)


@pytest.mark.parametrize(
    ("prm", "kwargs", "called", "left_out"),
    [
        ("vine", {}, "live Monte-Carlo values", "the completions of live values"),
        ("judge:Org/Judge-70B", {"endpoint": "http://h:8000/v1"}, "judge Org/Judge-70B", "the judge, which writes"),
    ],
)
def test_what_has_no_weights_in_these_gpus(tmp_path, capsys, prm, kwargs, called, left_out):
    given = {"model_name_or_path": "Qwen/Qwen2.5-1.5B", "prm": prm, "prm_kwargs": kwargs}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(given))
    settings, names = recipe_settings(tmp_path / "recipe.yaml", gpus=1)
    assert settings["prm"] is None and names["prm"] == prm
    for arguments in (["--config", str(tmp_path / "recipe.yaml")], ["--policy", "1.5B", "--prm", prm]):
        assert main(["plan", *arguments]) == 0
        told = capsys.readouterr().out
        assert f"PRM none ({called})" in told and f"not planned: {left_out}" in told


def test_a_judge_in_the_training_process_is_not_planned(tmp_path):
    (tmp_path / "recipe.yaml").write_text("{model_name_or_path: Qwen/Qwen2.5-1.5B, prm: 'judge:Org/Judge-7B'}")
    with pytest.raises(ValueError, match="got 'judge:Org/Judge-7B' without an endpoint in prm_kwargs"):
        recipe_settings(tmp_path / "recipe.yaml", gpus=1)


def test_names_are_those_of_the_recipes():
    assert (LIVE_VALUES, JUDGE) == (sources.LIVE_VALUES, load.PREFIX)


@pytest.mark.parametrize(
    ("prm", "kwargs", "scorer", "name"),
    [
        ("Qwen/Qwen2.5-Math-PRM-7B", {}, "prm", "Qwen/Qwen2.5-Math-PRM-7B"),
        ("teacher:Qwen/Qwen2.5-7B", {}, "frozen", "Qwen/Qwen2.5-7B"),
        ("teacher:Qwen/Qwen2.5-7B", {"endpoint": "http://h:8000/v1"}, "frozen", None),
        ("self", {}, "frozen", "Qwen/Qwen2.5-1.5B"),
        ("implicit", {}, "implicit", "Qwen/Qwen2.5-1.5B"),
        ("implicit", {"lora": {"r": 8}}, "adapter", "Qwen/Qwen2.5-1.5B"),
        ("implicit", {"lora": {"r": 8}, "base": "policy"}, "adapter", None),
        ("vine", {}, "prm", "vine"),
    ],
)
def test_who_scores_is_recognised(tmp_path, prm, kwargs, scorer, name):
    recipe = {"model_name_or_path": "Qwen/Qwen2.5-1.5B", "prm": prm, "prm_kwargs": kwargs}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    settings, names = recipe_settings(tmp_path / "recipe.yaml", gpus=1)
    assert (settings["scorer"], names.get("prm")) == (scorer, name)


def test_memory_and_time_of_who_scores_by_hand():
    """A PRM is a trunk, a teacher a whole model; an implicit PRM is two, with float32 weights and moments of one."""
    shape = SHAPES["1.5B"]
    plans = {
        kind: RunPlan(policy=shape, prm=shape, gpus=1, zero=0, scorer=kind, prm_tokens=1024, rollouts=64)
        for kind in ("prm", "frozen", "implicit")
    }
    memory = {kind: {name: size for name, (size, _) in memory_by_part(plan).items()} for kind, plan in plans.items()}
    assert memory["prm"]["PRM weights"] == 2 * shape.body_parameters
    assert memory["frozen"]["PRM weights"] == 2 * shape.parameters
    assert memory["implicit"]["PRM weights"] == 4 * shape.parameters
    assert memory["implicit"]["implicit PRM's optimizer"] == 12 * shape.parameters
    assert memory["implicit"]["PRM scoring"] > memory["frozen"]["PRM scoring"] > memory["prm"]["PRM scoring"]
    seconds = {kind: seconds_by_part(plan, GPUS["h100"])["PRM"] for kind, plan in plans.items()}
    tokens = plans["prm"].tokens
    per_token = shape.forward_flops_per_token + shape.attention_flops_per_token(tokens)
    flops = 2 * per_token * 64 * tokens  # teacher and policy, once each
    assert seconds["frozen"] == pytest.approx(flops / (GPUS["h100"].flops * 0.5))
    assert seconds["prm"] < seconds["frozen"] < seconds["implicit"]
    refreshed = memory_by_part(RunPlan(policy=shape, prm=shape, gpus=1, zero=0, rollouts=64, prm_refresh=True))
    assert refreshed["PRM refresh"][0] > 14 * shape.body_parameters and refreshed["PRM refresh"][1] == ("score",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model_name_or_path: tiny-random", "builds small models itself"),
        ("max_steps: 3", "builds small models itself"),
        ("- a list", "expected a mapping"),
        ("a: [", "is not YAML"),
    ],
)
def test_recipes_that_cannot_be_planned_are_refused(tmp_path, capsys, text, message):
    (tmp_path / "recipe.yaml").write_text(text)
    assert main(["plan", "--config", str(tmp_path / "recipe.yaml")]) == 2
    assert message in capsys.readouterr().err
    assert main(["plan", "--config", str(tmp_path / "absent.yaml")]) == 2
    assert "no such file" in capsys.readouterr().err


def test_launch_configs():
    assert launch_settings("zero2") == {"gpus": 8, "nodes": 1, "zero": 2, "offload_optimizer": False}
    assert launch_settings("multi_gpu")["zero"] == 0
    two_nodes = launch_settings(str(ROOT / "recipes" / "accelerate" / "zero3_2x8.yaml"))
    assert (two_nodes["gpus"], two_nodes["nodes"], two_nodes["zero"]) == (16, 2, 3)
    with pytest.raises(ValueError, match="distributed_type FSDP"):
        launch_settings("fsdp2")
    with pytest.raises(ValueError, match="no such file"):
        launch_settings("zero9")


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("Qwen/Qwen2.5-Math-7B-Instruct", 7615616512),
        ("Qwen/Qwen2.5-0.5B", 494032768),
        ("meta-llama/Llama-3.1-8B-Instruct", 8030261248),
        ("peiyi9979/math-shepherd-mistral-7b-prm", 7241732096),
    ],
)
def test_published_models_are_known_by_name(name, parameters):
    assert published_shape(name).parameters == parameters


def test_published_prms_are_known_by_name_and_others_are_not_guessed():
    for name in ("Qwen/Qwen2.5-Math-PRM-7B", "Qwen/Qwen2.5-Math-7B-PRM800K", "Gen-Verse/ReasonFlux-PRM-7B"):
        assert published_shape(name) is SHAPES["7B"], name
    assert published_shape("Qwen/Qwen2.5-Math-PRM-72B") is SHAPES["72B"]
    assert published_shape("Skywork/Skywork-o1-Open-PRM-Qwen-2.5-1.5B") is SHAPES["1.5B"]
    for name in ("Qwen/Qwen2.5-9B", "someone/Qwen2.5-7B", "Qwen/Qwen2.5-7B/x"):
        assert published_shape(name) is None, name


def test_adapters_by_hand():
    """Rank 2 on q (8 → 8), v (8 → 4) and the MLP's down (16 → 8), two layers: 2 · 2 · (16 + 12 + 24) = 208."""
    assert lora_parameters(TINY, 2, ["q_proj", "v_proj", "down_proj"]) == 208
    assert lora_parameters(TINY, 2) == 2 * 2 * (16 + 12 + 12 + 16 + 24 + 24 + 24)
    with pytest.raises(ValueError, match="got 'lm_head'"):
        lora_parameters(TINY, 2, ["lm_head"])


def test_adapters_equal_peft():
    peft = pytest.importorskip("peft")
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=16,
        vocab_size=10,
    )
    model = peft.get_peft_model(Qwen2ForCausalLM(config), peft.LoraConfig(r=2, target_modules="all-linear"))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == lora_parameters(TINY, 2) and torch.is_tensor(next(model.parameters()))


def prm_plan(**changes) -> RunPlan:
    return RunPlan(**dict(policy=TINY, prm=None, task="prm", gpus=1, zero=0, rollouts=4, vllm="none") | changes)


def test_training_a_prm_has_one_phase_a_head_and_no_logits():
    """Trunk 80 + 2 · 608 + 8 = 1304; head 8 · 8 + 8 + 2 · 8 + 2 = 90; 16 bytes each."""
    plan = prm_plan()
    assert plan.trained_parameters == 1304 + 90 and model_states(plan) == 16 * 1394
    assert list(peak_bytes(plan)) == ["train"] and "generation" not in memory_by_part(plan)
    assert set(seconds_by_part(plan, GPUS["h100"])) == {"train"}
    rl = RunPlan(policy=TINY, prm=None, gpus=1, zero=0, rollouts=4, vllm="none")
    tokens = 4 * plan.tokens
    assert memory_by_part(rl)["activations"][0] - memory_by_part(plan)["activations"][0] == tokens * 10 * 8


def test_adapters_train_little_and_freeze_the_rest():
    plan = prm_plan(adapter_parameters=208)
    assert model_states(plan) == 16 * (208 + 90)
    assert frozen_weights(plan) == 4 * 1304 and frozen_weights(prm_plan()) == 0
    assert frozen_weights(prm_plan(adapter_parameters=208, frozen_bytes=2)) == 2 * 1304
    sharded = prm_plan(adapter_parameters=208, zero=3, gpus=4, rollouts=16)
    assert frozen_weights(sharded) == 2 * 1304 // 4


def test_autocast_copies_what_is_multiplied():
    """bf16 copies of float32 weights: 2 · 608 in the layers, and the policy's output matrix of 80."""
    rl = RunPlan(policy=TINY, prm=None, gpus=1, zero=0, rollouts=4, vllm="none")
    assert autocast_copies(rl) == 2 * (2 * 608 + 80) and autocast_copies(prm_plan()) == 2 * 2 * 608
    assert autocast_copies(prm_plan(zero=2)) == 0
    assert autocast_copies(prm_plan(adapter_parameters=208, frozen_bytes=2)) == 0


def test_host_memory_of_what_is_offloaded():
    p, body = SHAPES["7B"].parameters, SHAPES["7B"].body_parameters
    plan = dict(policy=SHAPES["7B"], prm=SHAPES["7B"], gpus=16, nodes=2)
    assert host_memory(RunPlan(**plan)) == {}
    assert host_memory(RunPlan(**plan, zero=1, offload_optimizer=True)) == {"optimizer": 8 * p}
    # DeepSpeed: 16 bytes for the whole and a margin of a half, over the nodes under ZeRO-3; 4 · 16 GPUs under ZeRO-2
    assert host_memory(RunPlan(**plan, zero=3, offload_optimizer=True)) == {"optimizer": 12 * p}
    assert host_memory(RunPlan(**plan, zero=2, offload_optimizer=True)) == {"optimizer": 96 * p}
    assert host_memory(RunPlan(**plan, prm_placement="offload")) == {"PRM, a copy for each GPU": 2 * body * 8}


def test_a_fix_that_offloads_says_what_the_host_needs(capsys):
    flags = ["--policy", "7B", "--prm", "7B", "--gpus", "2", "--gpu", "a100-80", "--zero", "3"]
    assert main(["plan", *flags]) == 0
    text = capsys.readouterr().out
    assert "does not fit in 80 GB" in text and "offload" in text and "host memory per node, GB:" in text


def test_one_gpu_recipe_needs_what_its_header_says():
    """The header says one GPU of 80 GB; 40 GB are too few."""
    settings, _ = recipe_settings(CONFIGS / "qwen2.5-math-1.5b_prm-7b.yaml", gpus=1)
    plan = dict(settings, gpus=1, zero=0)
    assert fits(RunPlan(**plan)) and not fits(RunPlan(**plan, gpu_bytes=40 * GB))
