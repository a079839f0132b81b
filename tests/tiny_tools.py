"""A tiny policy that calls tools: a tokenizer of characters, a chat template, scripted turns, tools, its trainer."""

from collections.abc import Callable
from typing import Any

from datasets import Dataset
from tokenizers import decoders
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM, set_seed
from trl import GRPOTrainer

from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.rl.ppo import ProcessPPOTrainer
from rlhf_prm.rl.ppo_config import ProcessPPOConfig
from tests.tiny import HashScorer, tiny_config
from tests.tiny_models import tiny_qwen2, word_tokenizer

MARKS = ("<u>", "</u>", "<a>", "<t>", "</t>", "<call>", "</call>")
CHARACTERS = "\n !\"'()*+,-./0123456789:=?[\\]_abcdefghijklmnopqrstuvwxyz{}ABCDEFGHIJKLMNOPQRSTUVWXYZ"
TEMPLATE = (
    "{% for m in messages %}"
    "{% if m.role == 'assistant' %}<a>{{ m.content }}"
    "{% for c in m.tool_calls or [] %}"
    '<call>{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}</call>'
    "{% endfor %}<eos>"
    "{% elif m.role == 'tool' %}<t>{{ m.content }}</t>"
    "{% else %}<u>{{ m.content }}</u>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<a>{% endif %}"
)
RESPONSE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<a>",
    "fields": {
        "tool_calls": {
            "open": "<call>",
            "close_pattern": r"</call>",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": "{content}"},
        },
        "content": {"close_pattern": r"<eos>", "content": "text"},
    },
}


def tool_tokenizer() -> PreTrainedTokenizerFast:
    """One token per character, and one per mark of the template."""
    words = ["<pad>", "<eos>", "<unk>", *MARKS, *CHARACTERS]
    pattern = "|".join(["<pad>", "<eos>", *MARKS, r"[\s\S]"])
    tokenizer = word_tokenizer(words, pattern, unk_token="<unk>", padding_side="left", chat_template=TEMPLATE)
    tokenizer.backend_tokenizer.decoder = decoders.Fuse()
    tokenizer.response_template = RESPONSE
    return tokenizer


def tool_policy(seed: int = 0) -> Qwen2ForCausalLM:
    set_seed(seed)
    return Qwen2ForCausalLM(
        tiny_qwen2(3 + len(MARKS) + len(CHARACTERS), initializer_range=0.3, max_position_embeddings=1024)
    )


def call(name: str, **arguments: Any) -> str:
    """The text that calls a tool."""
    pairs = ", ".join(f'"{key}": {value!r}'.replace("'", '"') for key, value in arguments.items())
    return f'<call>{{"name": "{name}", "arguments": {{{pairs}}}}}</call>'


def script(monkeypatch: Any, trainer: Any, turn: Callable[[str, int], str]) -> None:
    """The policy's turns are written by ``turn(conversation so far, how many turns it has had)``, each with its end."""
    tokenizer = trainer.processing_class

    def scripted(prompt_ids, images, multimodal_fields, num_generations, has_tool_images=False):
        texts = [tokenizer.decode(ids) for ids in prompt_ids]
        written = [turn(text, text.count("<a>") - 1) + "<eos>" for text in texts]
        return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in written], None

    # Below our own override, so that the trainer's is what is tested.
    monkeypatch.setattr(GRPOTrainer, "_generate_single_turn", lambda self, *args, **kwargs: scripted(*args, **kwargs))


def messages(rows: int = 8, **columns) -> Dataset:
    prompts = [[{"role": "user", "content": f"count to {i % 4}"}] for i in range(rows)]
    return Dataset.from_dict({"prompt": prompts} | columns)


def tool_trainer(algorithm, folder, monkeypatch, turn, **arguments):
    """A trainer of two updates, "grpo" or "ppo"; its turns are scripted where ``turn`` is given."""
    settings = {"max_steps": 2, "max_completion_length": 300, **arguments.pop("settings", {})}
    trainer_class, config = ProcessGRPOTrainer, None
    if algorithm == "ppo":
        trainer_class = ProcessPPOTrainer
        config = tiny_config(folder, ProcessPPOConfig, **({"num_generations": 4} | settings))
    config = config or tiny_config(folder, **settings)
    defaults = {"train_dataset": messages(), "processing_class": tool_tokenizer(), "step_scorer": HashScorer()}
    model = tool_policy()
    if config.beta:  # TRL loads the reference by name
        model.save_pretrained(folder / "policy")
        model = str(folder / "policy")
    trainer = trainer_class(model=model, args=config, **(defaults | arguments))
    if turn is not None:
        script(monkeypatch, trainer, turn)
    return trainer


class Counter:
    """An environment as TRL's documentation has them: ``reset``, one tool, state that reward functions read."""

    def reset(self, **kwargs) -> str:
        self.count = 0
        return " from 0"

    def increment(self, by: int) -> int:
        """
        Adds to the count.

        Args:
            by: How much to add.

        Returns:
            The count.
        """
        self.count += by
        return self.count


def counted(environments, **kwargs) -> list[float]:
    return [float(environment.count) for environment in environments]


def add(a: int, b: int) -> int:
    """Adds two numbers.

    Args:
        a: one.
        b: the other.
    """
    return a + b
