"""Prompt templates: from a problem to the text that a policy sees before its first step."""

from dataclasses import dataclass

from rlhf_prm.command_line import loading
from rlhf_prm.tokenizer_checks import saved_tokenizer

SYSTEM_BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
TEMPLATES = {
    "plain": "{problem}\n\n",
    "chatml": "<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{problem}<|im_end|>\n<|im_start|>assistant\n",
}


@dataclass(frozen=True)
class PromptTemplate:
    """``template(problem) -> str``.

    Args:
        text: a name in ``TEMPLATES`` ("plain", "chatml": Qwen's), or a text with ``{problem}`` (and ``{system}``).
        system: the system message, used if the text has a place for it.

    Raises:
        ValueError: the text has no ``{problem}``.
    """

    text: str = "plain"
    system: str = SYSTEM_BOXED

    def __post_init__(self) -> None:
        if "{problem}" not in TEMPLATES.get(self.text, self.text):
            raise ValueError(
                f"template: got {self.text!r}, expected one of {', '.join(TEMPLATES)}, or a text with {{problem}} in it"
            )

    def __call__(self, problem: str) -> str:
        text = TEMPLATES.get(self.text, self.text)
        return text.replace("{system}", self.system).replace("{problem}", problem)


class ChatTemplate:
    """``template(problem) -> str`` by a tokenizer's own chat template, up to where the assistant begins.

    A leading BOS token is left out if tokenizing the text adds it. Not every tokenizer does: SmolLM2's BOS token
    opens a turn, and it stays.

    Args:
        tokenizer: Hub name or folder; only the tokenizer is loaded.

    Raises:
        ValueError: the tokenizer has no chat template.
    """

    def __init__(self, tokenizer: str, system: str = SYSTEM_BOXED):
        with loading(f"template 'chat': the tokenizer {tokenizer}", f"use one of {', '.join(TEMPLATES)}, or name it"):
            self.tokenizer = saved_tokenizer(tokenizer)
        self.system = system
        if not self.tokenizer.chat_template:
            raise ValueError(
                f"template 'chat': {tokenizer} has no chat template; use one of {', '.join(TEMPLATES)}, or a text with "
                "{problem} in it"
            )
        alone = self.tokenizer("1", add_special_tokens=False)["input_ids"]
        adds_bos = self.tokenizer("1")["input_ids"][: len(alone) + 1] == [self.tokenizer.bos_token_id, *alone]
        self._added = self.tokenizer.bos_token if adds_bos else ""

    def __call__(self, problem: str) -> str:
        messages = [{"role": "system", "content": self.system}, {"role": "user", "content": problem}]
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return text.removeprefix(self._added)
