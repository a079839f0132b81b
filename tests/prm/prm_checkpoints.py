"""Tiny random PRM checkpoints in the layouts that the published ones have, made on the spot."""

import json

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForTokenClassification,
    MistralConfig,
    MistralForCausalLM,
    Olmo2Config,
    Phi3Config,
    PhiConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2ForTokenClassification,
    Qwen3Config,
)

from rlhf_prm.prm.decoders import decoder_class
from rlhf_prm.prm.qwen2 import Qwen2ForProcessRewardModel, Qwen2WithValueHead
from tests.tiny_models import byte_level_tokenizer

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ '<|begin_of_text|>' }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' "
    "+ m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
)
QWEN_SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
LLAMA_SPECIALS = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
CORPUS = [
    "Janet has 16 eggs a day. She eats 3 and sells the rest for $2 each. How many dollars does she make?",
    "Step 1: 16 - 3 = 13 eggs are left. Step 2: 13 * 2 = 26 dollars.\n\nThe answer is \\boxed{26}. + - good bad user",
]


def chat_tokenizer(specials: list[str], chat_template: str | None, **marks: str) -> PreTrainedTokenizerFast:
    tokenizer = byte_level_tokenizer(CORPUS * 3, specials, 340, **marks)
    tokenizer.chat_template = chat_template
    return tokenizer


def sentencepiece_tokenizer() -> PreTrainedTokenizerFast:
    """BPE over blanks-as-▁ with byte fall-back and a leading <s>, as Mistral 7B's; ▁ки, ▁+, ▁- are one token each."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(vocab_size=260, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    lines = [line for text in CORPUS for line in text.replace("\n\n", "\n").split("\n")]
    tokenizer.train_from_iterator([*lines, "ки ки ки + + + - - -"] * 4, trainer)
    state = json.loads(tokenizer.to_str())
    vocabulary = state["model"]["vocab"]
    vocabulary |= {f"<0x{byte:02X}>": len(vocabulary) + byte for byte in range(256)}
    state["model"]["byte_fallback"] = True
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def dimensions(tokenizer) -> dict:
    return {
        "vocab_size": len(tokenizer) + 5,  # published checkpoints pad the embedding too
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,  # of 32 dimensions, the fewest that vLLM's attention on a CPU takes
        "num_key_value_heads": 1,
        "max_position_embeddings": 512,
        "initializer_range": 0.3,  # so that scores are far from 1/2
        "tie_word_embeddings": False,
    }


def _saved(model_class, config_class, tokenizer, folder, seed: int = 0, architecture: str | None = None, **config):
    torch.manual_seed(seed)
    model_class(config_class(**dimensions(tokenizer), **config)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if architecture is not None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"architectures": [architecture]}))
    return folder


def qwen_prm(folder, chat_template: str | None = CHATML):
    """Qwen2.5-Math-PRM: <extra_0> among the special tokens, score.0 and score.2."""
    tokenizer = chat_tokenizer([*QWEN_SPECIALS, "<extra_0>"], chat_template, pad_token="<|endoftext|>")
    return _saved(Qwen2ForProcessRewardModel, Qwen2Config, tokenizer, folder)


def math_shepherd(folder, sliding_window: int | None = None):
    return _saved(MistralForCausalLM, MistralConfig, sentencepiece_tokenizer(), folder, sliding_window=sliding_window)


def rlhflow(folder):
    tokenizer = chat_tokenizer(LLAMA_SPECIALS, LLAMA3, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>")
    return _saved(LlamaForCausalLM, LlamaConfig, tokenizer, folder)


def skywork(folder):
    """v_head.summary beside model.*, and an architecture that transformers does not know."""
    tokenizer = chat_tokenizer(QWEN_SPECIALS, CHATML, bos_token="<|endoftext|>", eos_token="<|im_end|>")
    return _saved(Qwen2WithValueHead, Qwen2Config, tokenizer, folder, architecture="Qwen2ForPrmModel")


def implicit(folder, seed: int = 0):
    """A causal LM; made twice, with two seeds, it is EurusPRM and its reference."""
    tokenizer = chat_tokenizer(QWEN_SPECIALS, CHATML, eos_token="<|im_end|>")
    return _saved(Qwen2ForCausalLM, Qwen2Config, tokenizer, folder, seed)


def token_classification(folder):
    tokenizer = chat_tokenizer(QWEN_SPECIALS, CHATML, eos_token="<|endoftext|>")
    return _saved(Qwen2ForTokenClassification, Qwen2Config, tokenizer, folder, num_labels=2)


DECODERS = {
    "llama": (LlamaConfig, {}),
    "mistral": (MistralConfig, {"sliding_window": None}),
    "gemma": (GemmaConfig, {"head_dim": 32}),
    "gemma2": (Gemma2Config, {"head_dim": 32, "query_pre_attn_scalar": 32}),
    "gemma3": (Gemma3TextConfig, {"head_dim": 32, "query_pre_attn_scalar": 32}),
    "phi": (PhiConfig, {}),
    "phi3": (Phi3Config, {"pad_token_id": 0}),
    "qwen3": (Qwen3Config, {"head_dim": 32}),
    "olmo2": (Olmo2Config, {}),
}


def decoder_prm(folder, name: str = "llama"):
    """What is trained here from a decoder that is no Qwen2; Llama's is made by transformers' own class."""
    config_class, settings = DECODERS[name]
    tokenizer = chat_tokenizer(
        [*LLAMA_SPECIALS, "<extra_0>"], LLAMA3, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>"
    )
    made = LlamaForTokenClassification if name == "llama" else decoder_class(config_class())
    return _saved(made, config_class, tokenizer, folder, num_labels=2, step_tag="<extra_0>", **settings)


def causal_tag(folder):
    tokenizer = chat_tokenizer([*QWEN_SPECIALS, "<step>"], None, eos_token="<|im_end|>")
    return _saved(Qwen2ForCausalLM, Qwen2Config, tokenizer, folder)
