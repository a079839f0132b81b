"""HF generation: exact sampling from the model's distribution, every row from its own seed."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GenerationConfig, Qwen2ForCausalLM

from rlhf_prm.annotate import GenerationError, Generator
from rlhf_prm.generation.hf import HFGenerator
from tests.tiny_models import tiny_qwen2, word_tokenizer

WORDS = ["<pad>", "<eos>", *"abcdefgh"]


@pytest.fixture(scope="module")
def parts():
    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 1, "num_key_value_heads": 2, "max_position_embeddings": 24, "initializer_range": 0.5}
    model = Qwen2ForCausalLM(tiny_qwen2(len(WORDS), **sizes)).eval()
    return model, word_tokenizer(WORDS, unknown="<pad>")


def test_is_a_generator_and_shapes_up(parts):
    generator = HFGenerator(*parts, max_new_tokens=5)
    assert isinstance(generator, Generator)
    texts = generator.generate(["a b", "c"], 3, seed=1)
    assert [len(row) for row in texts] == [3, 3]
    assert generator.generate(["a b", "c"], 3, seed=1) == texts != generator.generate(["a b", "c"], 3, seed=2)


def test_a_row_depends_on_its_seed_not_on_its_neighbours(parts):
    whole = HFGenerator(*parts, max_new_tokens=6, batch_size=64).generate(["a b c", "d", "e f"], 4, seed=[7, 8, 9])
    assert HFGenerator(*parts, max_new_tokens=6, batch_size=2).generate(["d", "a b c"], 4, seed=[8, 7]) == [
        whole[1],
        whole[0],
    ]
    assert len(set(whole[0])) > 1


def test_samples_follow_the_softmax(parts):
    model, tokenizer = parts
    ids = tokenizer("a b c", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        wanted = (model(ids).logits[0, -1] / 1.5).softmax(-1)
    generator = HFGenerator(*parts, max_new_tokens=1, temperature=1.5, batch_size=4000)
    (texts,) = generator.generate(["a b c"], 4000, seed=3)
    counts = torch.zeros(len(WORDS))
    for text in texts:
        counts[WORDS.index(text) if text else 1] += 1
    probabilities = wanted.clone()
    probabilities[1] += probabilities[0]  # both special tokens decode to nothing
    probabilities[0] = 0
    standard_errors = (probabilities * (1 - probabilities) / 4000).sqrt() + 1e-4
    assert ((counts / 4000 - probabilities).abs() < 5 * standard_errors).all()


def with_defaults_of_a_chat_model(model):
    """A copy whose own generation config distorts what is sampled, as that of a published checkpoint may."""
    distorted = copy.deepcopy(model)
    distorted.generation_config = GenerationConfig(
        repetition_penalty=3.0,
        no_repeat_ngram_size=1,
        suppress_tokens=[2, 3],
        begin_suppress_tokens=[4],
        min_new_tokens=5,
        forced_eos_token_id=9,
        eos_token_id=1,
        max_length=7,
        do_sample=True,
        top_k=1,
    )
    return distorted


@pytest.mark.parametrize("temperature", [0.0, 1.5])
@pytest.mark.parametrize("adapter", [False, True])
def test_the_checkpoints_own_sampling_defaults_change_nothing(parts, temperature, adapter):
    model, tokenizer = parts
    settings = {"max_new_tokens": 8, "temperature": temperature}
    wanted = HFGenerator(model, tokenizer, **settings).generate(["a b c", "d"], 8, seed=4)
    distorted = with_defaults_of_a_chat_model(model)
    own = distorted.generation_config
    before = own.to_dict()
    given = get_peft_model(distorted, LoraConfig(target_modules=["q_proj"])) if adapter else distorted
    assert HFGenerator(given, tokenizer, **settings).generate(["a b c", "d"], 8, seed=4) == wanted
    assert distorted.generation_config is own and own.to_dict() == before


def test_the_models_own_defaults_are_back_after_a_failure(parts, monkeypatch):
    model, tokenizer = parts
    own = model.generation_config

    def out_of_memory(*_, **__):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(model, "generate", out_of_memory)
    with pytest.raises(RuntimeError, match="out of memory"):
        HFGenerator(model, tokenizer).generate(["a"], 1)
    assert model.generation_config is own


def test_greedy_and_stop(parts):
    greedy = HFGenerator(*parts, max_new_tokens=8, temperature=0.0)
    ((first, second),) = greedy.generate(["a"], 2)
    assert first == second and first
    word = first.split()[-1]
    ((cut,),) = greedy.generate(["a"], 1, stop=[word])
    assert word not in cut and first.startswith(cut)


def test_a_prompt_beyond_the_context_is_refused(parts):
    with pytest.raises(GenerationError, match="30 tokens, the model's context 24"):
        HFGenerator(*parts).generate(["a " * 30], 1)
    (texts,) = HFGenerator(*parts, max_new_tokens=100).generate(["a " * 20], 2, seed=0)
    assert all(len(text.split()) <= 4 for text in texts)


def test_a_long_prompt_beside_a_short_one_does_not_cut_it(parts):
    """A context of 24 tokens leaves 4 behind a prompt of 20, 5 behind one of 19 and 23 behind one of 1."""
    generator = HFGenerator(*parts, max_new_tokens=100)
    prompts, seeds = ["a " * 20, "b", "c " * 19, "d " * 20], [5, 6, 7, 8]
    alone = [generator.generate([prompt], 6, seed=[seed])[0] for prompt, seed in zip(prompts, seeds, strict=True)]
    together = generator.generate(prompts, 6, seed=seeds)
    assert together == alone and [[text.ids for text in row] for row in together] == [
        [text.ids for text in row] for row in alone
    ]
    assert [max(len(text.ids) for text in row) for row in together] == [4, 23, 5, 4]


def test_the_probabilities_of_choices_are_the_models_own(parts):
    """Among the choices alone, by their first tokens; as the model's next-token distribution says."""
    model, tokenizer = parts
    generator = HFGenerator(model, tokenizer)
    ids = torch.tensor([tokenizer("a b c")["input_ids"]])
    with torch.no_grad():
        logits = model(ids).logits[0, -1]
    wanted = logits[[WORDS.index("d"), WORDS.index("f")]].softmax(-1).tolist()
    (found,) = generator.choose(["a b c"], ("d", "f"))
    assert found == pytest.approx(wanted) and sum(found) == pytest.approx(1.0)
    with pytest.raises(ValueError, match=r"choices 'd', 'd e' begin with the same token"):
        generator.choose(["a"], ("d", "d e"))
    with pytest.raises(GenerationError, match="the prompt has 30 tokens"):
        generator.choose(["a " * 30], ("d", "f"))


def test_a_last_message_of_the_assistant_begins_the_answer(parts):
    model, tokenizer = parts
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['content'] }} {% endfor %}{% if add_generation_prompt %}h {% endif %}"
    )
    asked = [{"role": "user", "content": "a b"}]
    begun = [*asked, {"role": "assistant", "content": "c d"}]
    generator = HFGenerator(model, tokenizer, max_new_tokens=4)
    assert generator.choose([begun], ("e", "f")) == generator.choose(["a b h c d"], ("e", "f"))
    assert generator.generate([begun], 1, seed=[3]) == generator.generate(["a b h c d"], 1, seed=[3])
    assert generator.generate([asked], 1, seed=[3]) == generator.generate(["a b h"], 1, seed=[3])


def test_a_judge_in_this_process(parts):
    """A model that cannot write the form: asked twice for each vote, read never, counted by the tokenizer."""
    from rlhf_prm.judges.load import load_judge

    generator = HFGenerator(*parts, max_new_tokens=3)
    generator.tokenizer.chat_template = "{{ messages[0]['content'][:8] }}"
    judge = load_judge("m", generator=generator, votes=2)
    ((score,),) = judge.score(["a"], [["b"]])
    assert score != score and judge.stats.judge_calls == 4 and judge.stats.judge_unreadable == 2
    assert judge.stats.judge_prompt_tokens > 0 and judge.stats.judge_completion_tokens <= 12
