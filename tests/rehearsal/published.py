"""Tiny random checkpoints laid out file by file as Qwen2.5-Math, its PRM and Qwen3 are on the Hub, and data with Hub
columns.

What differs from a toy checkpoint and has broken loaders before: bfloat16 weights in several files with an index, an
embedding larger than the tokenizer, ``vocab.json`` and ``merges.txt`` beside ``tokenizer.json``, a chat template that
puts in a system turn of its own, two end tokens and ``do_sample: false`` in ``generation_config.json``, and, in the
PRM's config, an ``auto_map`` to remote code that is not there.
"""

import json
import re
from pathlib import Path
from typing import Any

import torch
import trl
from datasets import Dataset, DatasetDict
from tokenizers import AddedToken
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from rlhf_prm.prm.qwen2 import Qwen2ForProcessRewardModel
from rlhf_prm.step_data import labels_from_first_error, write_rows
from tests.tiny_models import byte_level_tokenizer, tiny_qwen2

DATA = Path(__file__).resolve().parents[2] / "recipes" / "data"
BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
SYSTEM_TURN = f"<|im_start|>system\n{BOXED}<|im_end|>\n"
CHAT_TEMPLATE = (  # a first system message replaces the template's own turn
    "{%- if messages[0]['role'] != 'system' %}{{- '" + SYSTEM_TURN.replace("\\", "\\\\").replace("\n", "\\n") + "' }}"
    "{%- endif %}"
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
QWEN3_MARKS = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
STEP_TAG = "<extra_0>"
PADDED = 29  # rows of the embedding that no token has, as the published ones have some hundred
SHARD = "60KB"  # several files of weights, as the 7B models have
VARIANTS = 4  # solutions of one problem among the step labels


def gsm8k(file: str) -> list[dict[str, str]]:
    """Shipped problems with worked solutions whose last line is a boxed answer, as MATH's solutions have one."""
    rows = [json.loads(line) for line in (DATA / file).read_text().splitlines()]
    for row in rows:
        worked, gold = re.sub(r"<<.*?>>", "", row["answer"]).rsplit("\n#### ", 1)
        row["worked"], row["gold"] = worked, gold
    return rows


def qwen_tokenizer(special: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE, cut and normalised as Qwen2's; a blank line is one token."""
    texts = [f"{row['question']}\n\n{row['worked']}\n\n\\boxed{{{row['gold']}}}" for row in gsm8k("gsm8k_64.jsonl")]
    marks = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    tokenizer = byte_level_tokenizer(texts, special, 400, composed=True, **marks)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def qwen_config(tokenizer: PreTrainedTokenizerFast, **changes: Any) -> Qwen2Config:
    """The published settings but the sizes; heads are 32 wide, the fewest that vLLM's attention on a CPU takes."""
    settings = {"hidden_size": 64, "intermediate_size": 96, "max_position_embeddings": 4096, "max_window_layers": 2}
    settings |= {"pad_token_id": None, "eos_token_id": tokenizer.eos_token_id}
    settings["bos_token_id"] = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    return tiny_qwen2(len(tokenizer) + PADDED, **settings, **changes)


def _save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size=SHARD)
    assert len(list(folder.glob("*.safetensors"))) > 1 and (folder / "model.safetensors.index.json").exists()
    tokenizer.save_pretrained(folder)
    state = json.loads((folder / "tokenizer.json").read_text())
    (folder / "vocab.json").write_text(json.dumps(state["model"]["vocab"], ensure_ascii=False))
    merges = (" ".join(pair) for pair in state["model"]["merges"])
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    _edit(folder / "tokenizer_config.json", tokenizer_class="Qwen2Tokenizer", model_max_length=131072)


def _edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def policy_checkpoint(folder: Path, *, tied: bool) -> Path:
    """Qwen2.5-Math-Instruct's layout; the 1.5B ties input and output embedding, the 7B does not."""
    torch.manual_seed(0)
    tokenizer = qwen_tokenizer(SPECIAL)
    model = Qwen2ForCausalLM(qwen_config(tokenizer, tie_word_embeddings=tied))
    _save(model, tokenizer, folder)
    end = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    _edit(folder / "generation_config.json", do_sample=False, eos_token_id=end, pad_token_id=tokenizer.pad_token_id)
    return folder


def qwen3_checkpoint(folder: Path) -> Path:
    """Qwen3-1.7B's layout: tied embeddings, the published chat template, and marks of calls that are no special tokens.

    It brings no ``response_template``: TRL knows how this template's calls are read.
    """
    torch.manual_seed(2)
    tokenizer = qwen_tokenizer(SPECIAL)
    tokenizer.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in QWEN3_MARKS])
    tokenizer.chat_template = (Path(trl.__path__[0]) / "chat_templates" / "qwen3.jinja").read_text()
    kept = qwen_config(tokenizer, tie_word_embeddings=True).to_dict()
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    names += ("num_key_value_heads", "max_position_embeddings", "bos_token_id", "eos_token_id", "tie_word_embeddings")
    model = Qwen3ForCausalLM(Qwen3Config(head_dim=32, **{name: kept[name] for name in names}))
    _save(model, tokenizer, folder)
    end = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    sampling = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95}
    _edit(folder / "generation_config.json", **sampling, eos_token_id=end, pad_token_id=tokenizer.pad_token_id)
    return folder


def prm_checkpoint(folder: Path) -> Path:
    """Qwen2.5-Math-PRM-7B's layout; large initial weights, so that no two solutions score alike."""
    torch.manual_seed(1)
    tokenizer = qwen_tokenizer([*SPECIAL, STEP_TAG])
    _save(Qwen2ForProcessRewardModel(qwen_config(tokenizer, initializer_range=0.3)), tokenizer, folder)
    code = {"AutoConfig": "configuration_qwen2_rm.Qwen2RMConfig"}
    code["AutoModel"] = "modeling_qwen2_rm.Qwen2ForProcessRewardModel"
    _edit(folder / "config.json", auto_map=code)
    return folder


def math_columns(folder: Path) -> Path:
    """``train/`` and ``test/``: columns and splits of DigitalLearningGmbH/MATH-lighteval and HuggingFaceH4/MATH-500."""
    for split, file in (("train", "gsm8k_64.jsonl"), ("test", "gsm8k_test_16.jsonl")):
        rows = [
            {"problem": row["question"], "solution": f"{row['worked']}\n\nThe answer is $\\boxed{{{row['gold']}}}$."}
            for row in gsm8k(file)
        ]
        for number, row in enumerate(rows):
            row |= (
                {"level": "Level 1", "type": "Algebra"}
                if split == "train"
                else {"answer": "", "subject": "Algebra", "level": 1, "unique_id": f"test/algebra/{number}.json"}
            )
        DatasetDict({split: Dataset.from_list(rows)}).save_to_disk(folder / split)
    return folder


def gsm8k_columns(folder: Path) -> Path:
    """``train/`` and ``test/``: columns and splits of openai/gsm8k."""
    for split, file in (("train", "gsm8k_64.jsonl"), ("test", "gsm8k_test_16.jsonl")):
        rows = [{"question": row["question"], "answer": row["answer"]} for row in gsm8k(file)]
        DatasetDict({split: Dataset.from_list(rows)}).save_to_disk(folder / split)
    return folder


def step_labels(path: Path, source: str) -> Path:
    """Rows as ``rlhf-prm annotate`` writes them: each worked solution four times, thrice with a wrong step."""
    written = []
    for row in gsm8k("gsm8k_64.jsonl"):
        for variant in range(VARIANTS):
            steps = row["worked"].split("\n")
            wrong = (variant - 1) % len(steps) if variant else -1
            if wrong >= 0:
                steps[wrong] += f" That is {variant} too many."
            written.append(labels_from_first_error(wrong, len(steps), source).row(row["question"], steps))
    write_rows(path, written)
    return path
