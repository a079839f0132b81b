"""The sampler for prompts of any length: the same draws as one prompt at a time, and ``generate`` for TRL."""

import pytest
import torch
from transformers import GenerationConfig

from rlhf_prm.toyworld.sampler import PolicySampler
from rlhf_prm.wordproblems.sampler import TextSampler, generate_fast, load_policy

PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [12, 13], [14, 15, 16, 17], [18]]


@pytest.fixture(scope="module")
def policy(word_world):
    return load_policy(word_world.policy_path)


def test_padding_and_company_change_nothing(policy):
    """In float32, where sums are the same to many digits: every prompt alone gives the same tokens as all together."""
    model, tokenizer = policy[0].float(), policy[1]
    seeds = [101, 102, 103, 104]
    alone = [
        PolicySampler(model, tokenizer, max_new_tokens=20).generate_ids([prompt], 3, seed=[seed])[0]
        for prompt, seed in zip(PROMPTS, seeds, strict=True)
    ]

    class InFloat32(TextSampler):
        drop_at_once = 5

        def __init__(self, *arguments, **settings):
            super().__init__(*arguments, **settings)
            self.model = self.source

    together = InFloat32(model, tokenizer, max_new_tokens=20, batch_size=12).generate_ids(PROMPTS, 3, seed=seeds)
    assert together == alone
    assert len({len(ids) for group in alone for ids in group}) > 1  # some ended before the others
    model.to(torch.bfloat16)


def test_the_copy_follows_the_weights(policy):
    model, tokenizer = policy[0].float(), policy[1]
    sampler = TextSampler(model, tokenizer, max_new_tokens=12)
    assert sampler.model.dtype == torch.bfloat16 and sampler.source.dtype == torch.float32
    before = sampler.generate_ids(PROMPTS, 2, seed=0)
    assert sampler.generate_ids(PROMPTS, 2, seed=0) == before != sampler.generate_ids(PROMPTS, 2, seed=1)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(-1)
    assert sampler.generate_ids(PROMPTS, 2, seed=0) != before
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(-1)
    assert sampler.generate_ids(PROMPTS, 2, seed=0) == before
    model.to(torch.bfloat16)


def test_samples_know_their_tokens(policy):
    model, tokenizer = policy
    sampler = TextSampler(model, tokenizer, max_new_tokens=10)
    ((sample,), (other,)) = sampler.generate(["Nora has 5 eggs.", [{"role": "user", "content": "Hello"}]], 1, seed=3)
    assert sample == tokenizer.decode(sample.ids, skip_special_tokens=True)
    assert sample.prompt_ids == tokenizer("Nora has 5 eggs.")["input_ids"]
    assert tokenizer.decode(other.prompt_ids).endswith("<|im_start|>assistant\n")
    assert sampler.generate([]) == []
    (several,) = sampler.generate(["Nora has 5 eggs."], 4, seed=3)
    letter = max(several, key=len)[1]
    (cut,) = sampler.generate(["Nora has 5 eggs."], 4, seed=3, stop=[letter])
    assert cut == [text.partition(letter)[0] for text in several] != several
    assert [text.ids for text in cut] == [text.ids for text in several]


def test_generate_as_trl_calls_it(policy):
    """Two prompts, three rollouts each, padded in front: what comes back begins with them and ends in padding."""
    model, tokenizer = policy
    generate_fast(model, tokenizer)
    ids = torch.tensor([[0, 0, 5, 6]] * 3 + [[7, 8, 9, 10]] * 3)
    mask = torch.tensor([[0, 0, 1, 1]] * 3 + [[1, 1, 1, 1]] * 3)
    config = GenerationConfig(max_new_tokens=7, do_sample=True, temperature=1.0, top_p=1.0, top_k=0)
    torch.manual_seed(0)
    first = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
    torch.manual_seed(0)
    again = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
    assert torch.equal(first, again) and torch.equal(first[:, :4], ids) and first.shape[1] <= 11
    assert len({tuple(row) for row in first[:3].tolist()}) > 1  # the rollouts of a group differ
    torch.manual_seed(1)
    assert not torch.equal(model.generate(input_ids=ids, attention_mask=mask, generation_config=config), first)
    config.top_p = 0.9
    with pytest.raises(ValueError, match=r"top_p: got 0\.9"):
        model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
    del model.generate
