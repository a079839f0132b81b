import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf_prm.prm.qwen2 import Qwen2ForProcessRewardModel
from rlhf_prm.toyworld.problems import ChainProblem
from rlhf_prm.toyworld.sampler import PolicySampler
from rlhf_prm.toyworld.settings import ToyWorldSettings
from rlhf_prm.toyworld.verifier import final_answer
from rlhf_prm.toyworld.world import build_world, problem_splits


def weights(world):
    prm = Qwen2ForProcessRewardModel.from_pretrained(world.prm_path)
    policy = AutoModelForCausalLM.from_pretrained(world.policy_path)
    return [*policy.state_dict().values(), *prm.state_dict().values()]


def test_a_checkpoint_that_transformers_loads_and_generates_with(small_world):
    model = AutoModelForCausalLM.from_pretrained(small_world.policy_path)
    tokenizer = AutoTokenizer.from_pretrained(small_world.policy_path)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == model.config.eos_token_id
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id
    inputs = tokenizer(small_world.eval_dataset["prompt"][:1], return_tensors="pt")
    ids = model.generate(**inputs, do_sample=False, max_new_tokens=small_world.settings.max_completion_length)
    assert ids[0, -1] == tokenizer.eos_token_id


def test_datasets_hold_prompts_and_right_gold_answers(small_world):
    assert len(small_world.train_dataset) == 40 and len(small_world.eval_dataset) == 200
    for row in [*small_world.train_dataset, *small_world.eval_dataset]:
        assert row["solution"] == ChainProblem.parse(row["prompt"]).solution
    assert not set(small_world.train_dataset["prompt"]) & set(small_world.eval_dataset["prompt"])


def test_fine_tuning_teaches_the_form_and_evaluation_is_seeded(small_world):
    model = AutoModelForCausalLM.from_pretrained(small_world.policy_path)
    tokenizer = AutoTokenizer.from_pretrained(small_world.policy_path)
    sampler = PolicySampler(model, tokenizer, max_new_tokens=small_world.settings.max_completion_length)
    samples = sampler.generate(small_world.eval_dataset["prompt"], seed=0)
    assert sum(final_answer(text) is not None for (text,) in samples) > 150
    scores = small_world.evaluate(model, tokenizer, seed=0)
    assert scores == small_world.evaluate(model, tokenizer, seed=0)
    assert scores["accuracy"] >= scores["process_accuracy"] >= 0


def test_another_seed_gives_an_independent_world(small, tmp_path):
    short = small | {"sft_updates": 4, "labelled_solutions": 24, "prm_updates": 2, "label_source": "gold"}
    one, other = (build_world(ToyWorldSettings(**short, seed=seed), tmp_path) for seed in (0, 1))
    assert not any(torch.equal(a, b) for a, b in zip(weights(other), weights(one), strict=True) if a.dim() > 1)
    assert len(set(other.train_dataset["prompt"]) & set(one.train_dataset["prompt"])) < 4


def test_gold_fraction_keeps_that_share_and_rebuilds_nothing(small, small_world, cache_root):
    world = build_world(ToyWorldSettings(**small, gold_fraction=0.1), cache_root)
    kept = [row for row in world.train_dataset if row["solution"] is not None]
    assert len(kept) == 4 and world.train_dataset["prompt"] == small_world.train_dataset["prompt"]
    assert all(row["solution"] == ChainProblem.parse(row["prompt"]).solution for row in kept)
    assert None not in world.eval_dataset["solution"]
    assert all(world.cached.values()) and world.prm_path == small_world.prm_path
    none = build_world(ToyWorldSettings(**small, gold_fraction=0.0), cache_root)
    assert set(none.train_dataset["solution"]) == {None}


def test_problem_lists_are_disjoint_and_long_chains_are_long(small):
    splits = problem_splits(ToyWorldSettings(**small, long_chains=True))
    everything = [problem for problems in splits.values() for problem in problems]
    assert len(set(everything)) == len(everything) == 200 + 60 * 32 + 100 + 40
    assert {len(problem.chain) for problem in everything} == {7, 8, 9}
