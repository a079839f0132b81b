"""Finds out from the prompts whether completions begin inside a thought, which the verifier must know."""

import warnings
from typing import Any

from trl.data_utils import is_conversational

from rlhf_prm.rl.trl_seam import reads_images, rendered
from rlhf_prm.thinking import Thinking

OPENED = "<think>"


def tell_of_thoughts(verifier: Any, trainer: Any) -> None:
    """Set ``verifier.in_thought`` if its user has not and the first training prompt ends in an open ``<think>``.

    A completion that was cut off before ``</think>`` would otherwise be read as an answer. A verifier without that
    attribute is left alone; if the user set it to False, a warning is given.
    """
    if opens_thought(trainer):
        tell_in_thought(verifier)


def tell_in_thought(verifier: Any) -> None:
    """``tell_of_thoughts`` where it is known that completions begin inside a thought."""
    if not hasattr(verifier, "in_thought"):
        return
    if verifier.in_thought is None:
        verifier.in_thought = True
    elif not verifier.in_thought:
        warnings.warn(
            f"verifier: got in_thought=False, but the prompts end in {OPENED}: a completion that is cut off inside its "
            "thought is read as an answer; leave in_thought out, or set it to True",
            stacklevel=3,
        )


def refuse_unopened(thinking: Thinking | None, trainer: Any) -> None:
    """Raise a ValueError if prompts open the thought but ``think_opened`` is False.

    A completion that is cut off inside its thought would otherwise count as all answer.
    """
    if thinking is not None and not thinking.opened and thinking.begin == OPENED and opens_thought(trainer):
        raise ValueError(f"think_opened: got False, but the prompts end in {OPENED}; set think_opened: true")


def opens_thought(trainer: Any) -> bool:
    """Whether the first training prompt, as the policy reads it, ends in ``<think>``.

    False for a stream, for images, and if an environment supplies the prompt.
    """
    rows = trainer.train_dataset
    if not hasattr(rows, "__len__") or not len(rows) or reads_images(trainer):
        return False
    if "prompt" not in rows[0]:
        return False
    prompt = rows[0]["prompt"]
    if is_conversational({"prompt": prompt}):
        last = prompt[-1]  # TRL goes on from an assistant's turn
        prompt = last["content"] if last["role"] == "assistant" else rendered(trainer, prompt)
    return prompt.rstrip().endswith(OPENED)
