from collections import Counter

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf_prm.toyworld.sampler import PolicySampler


@pytest.fixture(scope="module")
def loaded(small_world):
    tokenizer = AutoTokenizer.from_pretrained(small_world.policy_path)
    return AutoModelForCausalLM.from_pretrained(small_world.policy_path), tokenizer


def test_greedy_equals_transformers_generate(loaded, small_world):
    model, tokenizer = loaded
    prompts = small_world.eval_dataset["prompt"][:40]
    inputs = tokenizer(prompts, return_tensors="pt", padding=True)
    generated = model.generate(**inputs, do_sample=False, max_new_tokens=32)[:, inputs["input_ids"].shape[1] :]
    reference = tokenizer.batch_decode(generated, skip_special_tokens=True)
    sampled = PolicySampler(model, tokenizer, max_new_tokens=32, temperature=0.0, batch_size=7).generate(prompts)
    assert [group[0] for group in sampled] == reference
    assert len(set(reference)) > 10


def test_samples_follow_the_models_distribution(loaded, small_world):
    """Two positions of 20,000 samples against the model's own probabilities."""
    model, tokenizer = loaded
    prompt = tokenizer(small_world.eval_dataset["prompt"][0]).input_ids
    sampler = PolicySampler(model, tokenizer, max_new_tokens=6, temperature=0.8, batch_size=20_000)
    samples = sampler.generate_ids([prompt], 20_000, seed=0)[0]
    for position in (0, 4):
        prefix = list(Counter(tuple(ids[:position]) for ids in samples).most_common(1)[0][0])
        matching = [ids[position] for ids in samples if ids[:position] == prefix and len(ids) > position]
        with torch.no_grad():
            logits = model(torch.tensor([prompt + prefix])).logits[0, -1]
        expected = (logits / 0.8).softmax(-1)
        shares = torch.bincount(torch.tensor(matching), minlength=len(expected)) / len(matching)
        assert len(matching) > 2000
        assert (shares - expected).abs().max() < 4 * 0.5 / len(matching) ** 0.5  # four standard errors at most


def test_seeds(loaded, small_world):
    model, tokenizer = loaded
    prompts = small_world.eval_dataset["prompt"][:20]
    sampler = PolicySampler(model, tokenizer, max_new_tokens=32)
    first = sampler.generate(prompts, 3, seed=1)
    assert first == sampler.generate(prompts, 3, seed=1) != sampler.generate(prompts, 3, seed=2)
    assert [len(group) for group in first] == [3] * 20
    assert any(len(set(group)) > 1 for group in first)


def test_a_limit_cuts_and_training_mode_is_restored(loaded, small_world):
    model, tokenizer = loaded
    model.train()
    prompt = tokenizer(small_world.eval_dataset["prompt"][0]).input_ids
    ids = PolicySampler(model, tokenizer, max_new_tokens=3, temperature=0.0).generate_ids([prompt], 4)
    assert model.training and {len(completion) for completion in ids[0]} == {3}
    model.eval()


def test_bad_numbers_are_refused(loaded):
    with pytest.raises(ValueError, match="max_new_tokens=0"):
        PolicySampler(*loaded, max_new_tokens=0)
