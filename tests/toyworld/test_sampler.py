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
    assert len(set(reference)) > 20


def test_samples_follow_the_models_distribution(loaded, small_world):
    """Two positions of 8,000 samples against the model's own probabilities."""
    model, tokenizer = loaded
    prompt = tokenizer(small_world.eval_dataset["prompt"][0]).input_ids
    sampler = PolicySampler(model, tokenizer, max_new_tokens=6, temperature=0.8, batch_size=8000)
    samples = sampler.generate_ids([prompt], 8000, seed=0)[0]
    for position in (0, 4):
        prefix = list(Counter(tuple(ids[:position]) for ids in samples).most_common(1)[0][0])
        matching = [ids[position] for ids in samples if ids[:position] == prefix and len(ids) > position]
        with torch.no_grad():
            logits = model(torch.tensor([prompt + prefix])).logits[0, -1]
        expected = (logits / 0.8).softmax(-1)
        shares = torch.bincount(torch.tensor(matching), minlength=len(expected)) / len(matching)
        assert len(matching) > 800
        assert (shares - expected).abs().max() < 4 * 0.5 / len(matching) ** 0.5  # four standard errors at most


def test_seeds(loaded, small_world):
    model, tokenizer = loaded
    prompts = small_world.eval_dataset["prompt"][:20]
    sampler = PolicySampler(model, tokenizer, max_new_tokens=32)
    first = sampler.generate(prompts, 3, seed=1)
    assert first == sampler.generate(prompts, 3, seed=1) != sampler.generate(prompts, 3, seed=2)
    assert [len(group) for group in first] == [3] * 20
    assert any(len(set(group)) > 1 for group in first)


def test_a_seed_per_prompt_makes_its_samples_independent_of_the_others(loaded, small_world):
    model, tokenizer = loaded
    prompts = small_world.eval_dataset["prompt"][:20]
    sampler = PolicySampler(model, tokenizer, max_new_tokens=32)
    together = sampler.generate(prompts, 2, seed=list(range(20)))
    assert sampler.generate(prompts[7:9], 2, seed=[7, 8]) == together[7:9]
    assert sampler.generate(prompts[:1] * 2, 1, seed=[0, 1])[0] != together[1][:1]
    with pytest.raises(ValueError, match="3 seeds for 20 prompts"):
        sampler.generate(prompts, seed=[1, 2, 3])


def test_stop_texts_end_a_completion(loaded, small_world):
    sampler = PolicySampler(*loaded, max_new_tokens=32)
    prompts = small_world.eval_dataset["prompt"][:20]
    whole, cut = (sampler.generate(prompts, seed=0, stop=stop) for stop in (None, ["\n\n"]))
    assert [text.split("\n\n")[0] for (text,) in whole] == [text for (text,) in cut]
    assert sampler.generate([], 3) == []


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
