"""A tokenizer that is not the saved one, or that does not know where an answer ends, is found when it is loaded."""

import warnings

import pytest
import torch
from datasets import Dataset
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from rlhf_prm.generation.hf import HFGenerator
from rlhf_prm.prm_training.config import PRMConfig
from rlhf_prm.prm_training.trainer import PRMTrainer
from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.tokenizer_checks import PROBES, check_ends, check_is_saved_one, check_policy, saved_tokenizer
from tests.tiny import DigitVerifier, HashScorer, tiny_config, tiny_dataset

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def bpe_tokenizer(**names) -> PreTrainedTokenizerFast:
    """Byte-level BPE that takes digits and line breaks one by one, which no published Qwen2 tokenizer does."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d|\n| ?[^\s\d]+| "), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    inner.train_from_iterator([*PROBES, "So there are 17 + 3 = 20 eggs.\n\n"] * 20, trainer)
    inner.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    return PreTrainedTokenizerFast(tokenizer_object=inner, chat_template=CHATML, **names)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Qwen2 with a tokenizer of its own: AutoTokenizer puts Qwen2's class in its place."""
    folder = tmp_path_factory.mktemp("policy")
    tokenizer = bpe_tokenizer(eos_token="<|im_end|>", pad_token="<|endoftext|>")
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=128, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_class_that_was_swapped_in_is_found(folder):
    own, swapped = saved_tokenizer(folder), AutoTokenizer.from_pretrained(folder)
    assert own(PROBES[0])["input_ids"] == bpe_tokenizer()(PROBES[0])["input_ids"] != swapped(PROBES[0])["input_ids"]
    check_is_saved_one(own, folder)
    with pytest.raises(ValueError, match=r"Qwen2Tokenizer\) is not the one that .* was saved with.*saved_tokenizer\("):
        check_is_saved_one(swapped, folder)


def test_a_longer_vocabulary_is_the_same_tokenizer_and_nothing_stored_says_nothing(folder, tmp_path):
    own = saved_tokenizer(folder)
    own.add_tokens(["<extra_0>"], special_tokens=True)
    check_is_saved_one(own, folder)
    for name in ("", tmp_path, "no/such-model"):
        check_is_saved_one(own, name)


def test_everything_that_loads_by_name_takes_the_saved_one(folder, tmp_path):
    expected = saved_tokenizer(folder)(PROBES[0])["input_ids"]
    assert HFGenerator(str(folder), device="cpu").tokenizer(PROBES[0])["input_ids"] == expected
    rows = Dataset.from_list([{"prompt": "a", "completions": ["so"], "labels": [True]}] * 4)
    args = PRMConfig(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    assert PRMTrainer(str(folder), args, rows).processing_class(PROBES[0])["input_ids"] == expected
    with pytest.raises(ValueError, match="is not the one that"):
        PRMTrainer(str(folder), args, rows, processing_class=AutoTokenizer.from_pretrained(folder))


def test_a_trainer_of_policies_refuses_the_wrong_one(folder, tmp_path):
    def trainer(tokenizer):
        return ProcessGRPOTrainer(
            model=Qwen2ForCausalLM.from_pretrained(folder),
            args=tiny_config(tmp_path),
            step_scorer=HashScorer(),
            verifier=DigitVerifier(),
            train_dataset=tiny_dataset(8),
            processing_class=tokenizer,
        )

    trainer(saved_tokenizer(folder, padding_side="left"))
    with pytest.raises(ValueError, match="is not the one that"):
        trainer(AutoTokenizer.from_pretrained(folder, padding_side="left"))
    wrong_end = saved_tokenizer(folder, padding_side="left")
    wrong_end.eos_token = "<|im_start|>"
    with pytest.raises(ValueError, match=r"calls '<\|im_start\|>' the end of a sequence"):
        trainer(wrong_end)


def test_an_end_that_begins_answers_is_refused_with_the_fix():
    """As the tokenizer that transformers makes of SmolLM2's GGUF file."""
    message = r"calls '<\|im_start\|>' the end .* begins an answer with it.*ends a turn with '<\|im_end\|>'"
    with pytest.raises(ValueError, match=message):
        check_ends(bpe_tokenizer(eos_token="<|im_start|>"))


def test_right_ends_pass_and_doubtful_ones_are_told():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_ends(bpe_tokenizer(eos_token="<|im_end|>"))
        base = bpe_tokenizer(eos_token="<|endoftext|>")
        check_ends(base, [None, base.convert_tokens_to_ids("<|im_end|>")])  # the generation config knows it
        plain = bpe_tokenizer(eos_token="<|endoftext|>")
        plain.chat_template = None
        check_ends(plain)
        plain.chat_template = "{{ raise_exception('one role only') }}"
        check_ends(plain)
    with pytest.warns(
        UserWarning, match=r"ends a turn with '<\|im_end\|>', but generation stops only at '<\|endoftext"
    ):
        check_ends(base)


def test_no_end_at_all_is_refused():
    with pytest.raises(ValueError, match=r"no end-of-sequence token.*set tokenizer\.eos_token"):
        check_ends(bpe_tokenizer())


def test_ids_that_the_model_does_not_embed_are_refused(folder):
    model, tokenizer = Qwen2ForCausalLM.from_pretrained(folder), saved_tokenizer(folder)
    check_policy(tokenizer, model)
    tokenizer.add_special_tokens({"pad_token": "<new pad>"})
    with pytest.raises(ValueError, match=r"pad token has id \d+, but the model embeds \d+ tokens.*resize_token_embed"):
        check_policy(tokenizer, model)
