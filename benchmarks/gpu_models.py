"""Random-weight models in published layouts, built on the device, and texts for them: what benchmarks/gpu.py runs.

Nothing is downloaded or written: sizes are those of ``rlhf_prm.plan.shapes``, the tokenizer is a list of made-up words.
"""

import math
import random
import zlib
from dataclasses import dataclass

import torch
from datasets import Dataset
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from transformers.utils import is_flash_attn_2_available

from reward.verifier import Verdict
from rlhf_prm.plan.shapes import SHAPES, ModelShape
from rlhf_prm.prm import FAMILIES, PRMScorer
from rlhf_prm.prm.placement import Replicate
from rlhf_prm.prm.qwen2 import Qwen2ForProcessRewardModel
from rlhf_prm.prm.readers import HeadReader
from rlhf_prm.prm.texts import Texts
from rlhf_prm.toyworld.tiny import CHAT_TEMPLATE

SPECIAL = ("[UNK]", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<extra_0>")
STEP_TOKENS = 40  # every so many-th word ends with a blank line, so that random text has steps of about this length
CONTEXT = 4096


@dataclass(frozen=True)
class Size:
    """What is built and how much is run. Token counts are per rollout; every prompt has 8 completions."""

    policy: ModelShape
    prm: ModelShape
    prompt_tokens: int
    completion_tokens: int  # of the recipe's updates; the shorter runs take a half
    prompts: int  # of one update of the recipe's kind
    scored_prompts: int  # of the scoring part
    scored_tokens: tuple[int, int, int]  # shortest, median, longest completion there
    matmul: int  # side of the square product whose speed is the peak
    precision_updates: int


SIZES = {
    # the published shapes: Qwen2.5-Math-1.5B as the policy, Qwen2.5-Math-PRM-7B
    "real": Size(SHAPES["1.5B"], SHAPES["7B"], 128, 512, 16, 16, (64, 350, 2048), 8192, 10),
    "tiny": Size(
        ModelShape(64, 2, 4, 2, 128, 512, tied=True),
        ModelShape(64, 2, 4, 2, 128, 512, tied=False),
        *(8, 16, 4, 2, (8, 24, 60), 256, 3),
    ),
}


def on_device(model_class: type, shape: ModelShape, dtype: torch.dtype, device: str, attention: str = "sdpa"):
    """A model of this shape with random weights in ``dtype``, made where it stays."""
    config = Qwen2Config(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        tie_word_embeddings=shape.tied,
        max_position_embeddings=CONTEXT,
        bos_token_id=None,
        pad_token_id=SPECIAL.index("<|endoftext|>"),
        eos_token_id=SPECIAL.index("<|im_end|>"),
        attn_implementation=attention,
    )
    standard = torch.get_default_dtype()
    torch.manual_seed(0)
    try:
        torch.set_default_dtype(dtype)
        with torch.device(device):
            return model_class(config)
    finally:
        torch.set_default_dtype(standard)


def random_policy(shape: ModelShape, dtype: torch.dtype, device: str) -> Qwen2ForCausalLM:
    """A policy whose next token is nearly uniform.

    With tied embeddings a random model repeats its last token for ever, and all completions of a prompt would be one;
    a small final norm makes the logits small.
    """
    model = on_device(Qwen2ForCausalLM, shape, dtype, device)
    model.model.norm.weight.data.fill_(0.02)
    return model


def words_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """A word is a token and every id below ``vocabulary`` is a word, so that whatever a policy samples can be read."""
    tokens = [*SPECIAL, *(f" w{i}" + "\n\n" * (i % STEP_TOKENS == 0) for i in range(len(SPECIAL), vocabulary))]
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r" ?w\d+(\n\n)?"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>", "<extra_0>"],
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
    )


def random_prm(
    shape: ModelShape, tokenizer: PreTrainedTokenizerFast, dtype: torch.dtype, device: str
) -> tuple[PRMScorer, Qwen2ForProcessRewardModel]:
    """A scorer as ``load_prm`` makes it of a checkpoint in Qwen2.5-Math-PRM's layout, and the model inside."""
    flash = device == "cuda" and is_flash_attn_2_available()
    model = on_device(Qwen2ForProcessRewardModel, shape, dtype, device, "flash_attention_2" if flash else "sdpa").eval()
    reader = HeadReader(model.model, model.score)
    family = FAMILIES["qwen_prm"]
    scorer = PRMScorer(
        family,
        Texts(tokenizer, family.tag),
        Replicate(reader, torch.device(device)),
        context=CONTEXT,
        max_batch_tokens=16384 if device == "cuda" else 1024,
        packs=reader.packs,
    )
    return scorer, model


def words(count: int, draw: random.Random, vocabulary: int) -> str:
    """``count`` tokens of ``words_tokenizer`` without a blank line among them."""
    numbers = (draw.randrange(len(SPECIAL), vocabulary) for _ in range(count))
    return "".join(f" w{number + 1 if number % STEP_TOKENS == 0 else number}" for number in numbers)


def random_rollouts(size: Size) -> tuple[list[str], list[list[str]]]:
    """Problems and the steps of 8 completions each, of log-normal lengths, for the scoring part."""
    draw, vocabulary = random.Random(0), min(size.policy.vocab, size.prm.vocab) - 1
    shortest, median, longest = size.scored_tokens
    problems, steps = [], []
    for _ in range(size.scored_prompts):
        problem = words(size.prompt_tokens, draw, vocabulary)
        for _ in range(8):
            length = 0
            while not shortest <= length <= longest:
                length = round(draw.lognormvariate(math.log(median), 0.8))
            problems.append(problem)
            cuts = range(0, length, STEP_TOKENS)
            steps.append([words(min(STEP_TOKENS, length - at), draw, vocabulary) for at in cuts])
    return problems, steps


def prompts(size: Size, count: int) -> Dataset:
    """Training problems of ``prompt_tokens`` tokens; nobody can solve them."""
    draw = random.Random(1)
    rows = [words(size.prompt_tokens, draw, size.policy.vocab - 1) for _ in range(count)]
    return Dataset.from_dict({"prompt": rows, "solution": ["1"] * count})


class Coin:
    """A verifier for random text, which holds no answers: half of the completions are right."""

    def verify(self, completions: list[str], solutions: list[str | None]) -> list[Verdict]:
        right = [zlib.crc32(text.encode()) % 2 for text in completions]
        return [Verdict(float(r), "correct" if r else "incorrect", None, 0.0) for r in right]
