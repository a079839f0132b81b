"""Completions that begin inside a thought: seen from the prompts, said to the verifier."""

from types import SimpleNamespace

import pytest
from datasets import Dataset

from reward.verifier.answers.extract import final_answer
from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.rl.thoughts import opens_thought
from tests.tiny import DigitVerifier, HashScorer, tiny_config, tiny_policy, tiny_tokenizer

PLAIN = "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %} ={% endif %}"
THINKING = PLAIN.replace(" =", " = <think>\n")
NO_THOUGHT = PLAIN.replace(" =", " = <think>\n\n</think>\n\n")


class TellableVerifier(DigitVerifier):
    def __init__(self, in_thought=None):
        self.in_thought = in_thought


def conversations() -> Dataset:
    prompts = [[{"role": "user", "content": f" {i} + 1"}] for i in range(8)]
    return Dataset.from_dict({"prompt": prompts, "solution": ["1"] * 8})


def trainer_of(folder, verifier, template):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return ProcessGRPOTrainer(
        model=tiny_policy(),
        args=tiny_config(folder),
        train_dataset=conversations(),
        processing_class=tokenizer,
        step_scorer=HashScorer(),
        verifier=verifier,
    )


@pytest.mark.parametrize(("template", "expected"), [(THINKING, True), (PLAIN, None), (NO_THOUGHT, None)])
def test_the_template_decides_where_the_user_said_nothing(tmp_path, template, expected):
    verifier = TellableVerifier()
    trainer_of(tmp_path, verifier, template)
    assert verifier.in_thought is expected
    cut_off = r"perhaps \boxed{4}"
    assert (final_answer(cut_off, bool(verifier.in_thought)).text is None) == (expected is True)


def test_a_user_who_says_otherwise_is_warned(tmp_path):
    verifier = TellableVerifier(in_thought=False)
    with pytest.warns(UserWarning, match="got in_thought=False, but the prompts end in <think>"):
        trainer_of(tmp_path, verifier, THINKING)
    assert verifier.in_thought is False


def test_prompts_of_text_and_messages_that_are_gone_on_from():
    def trainer(prompt):
        return SimpleNamespace(train_dataset=[{"prompt": prompt}], _is_vlm=False)

    assert opens_thought(trainer("What is 1?\n<think>\n")) and not opens_thought(trainer("Think in <think></think>."))
    begun = [{"role": "user", "content": "1?"}, {"role": "assistant", "content": "<think>"}]
    assert opens_thought(trainer(begun)) and not opens_thought(trainer([*begun[:1], {**begun[1], "content": "So"}]))
    assert not opens_thought(SimpleNamespace(train_dataset=iter([])))  # a stream
