import random

import pytest
from transformers import AutoTokenizer

from rlhf_prm.steps import StepSplitter, step_lengths
from rlhf_prm.toyworld.demonstrator import Demonstrator
from rlhf_prm.toyworld.policy import new_policy, save_policy
from rlhf_prm.toyworld.problems import SEPARATOR, ChainProblem, draw_splits
from rlhf_prm.toyworld.tokenizer import STEP_TAG, WORDS, toy_tokenizer

PROBLEM = ChainProblem(7, (("Add", 5), ("Minus", 6), ("Times", 3)))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """Loaded from a checkpoint: AutoTokenizer chooses the class by the model beside it."""
    folder = tmp_path_factory.mktemp("policy")
    tokenizer = toy_tokenizer()
    save_policy(new_policy(tokenizer, seed=0), tokenizer, folder)
    return AutoTokenizer.from_pretrained(folder)


def test_text_goes_there_and_back_through_a_saved_tokenizer(tokenizer):
    rng, demonstrator = random.Random(0), Demonstrator(0, filler=True)
    for problem in draw_splits(0, (3, 9), {"any": 100})["any"]:
        text = problem.prompt + SEPARATOR.join(demonstrator.solution(problem, rng))
        ids = tokenizer(text).input_ids
        assert tokenizer.decode(ids) == text and tokenizer.batch_decode([ids]) == [text]


def test_any_ids_go_there_and_back(tokenizer):
    """So the prefix of a solution may be given to the policy as text."""
    rng = random.Random(0)
    words = tokenizer.convert_tokens_to_ids(list(WORDS))
    for _ in range(200):
        ids = rng.choices(words, k=30)
        assert tokenizer(tokenizer.decode(ids)).input_ids == ids


def test_token_count_and_special_tokens(tokenizer):
    assert len(tokenizer) == 25
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert tokenizer.bos_token_id is None and tokenizer(" = ").input_ids == [tokenizer.convert_tokens_to_ids(" = ")]
    assert tokenizer(f"0{STEP_TAG}").input_ids[1] == tokenizer.convert_tokens_to_ids(STEP_TAG) != tokenizer.unk_token_id
    assert tokenizer.decode(tokenizer("9 Divide 3, hello").input_ids) == "93"


def test_the_ordinary_step_splitter_serves(tokenizer):
    ids = [*tokenizer(SEPARATOR.join(PROBLEM.gold_steps)).input_ids, tokenizer.eos_token_id]
    texts, lengths = step_lengths(ids, tokenizer, StepSplitter(SEPARATOR))
    assert texts == PROBLEM.gold_steps
    assert lengths == [6, 6, 6, 4]  # digit, operation, operand, =, digit, separator; box, digit, brace, end


def test_the_chat_template_is_problem_then_tagged_steps(tokenizer):
    steps = STEP_TAG.join(PROBLEM.gold_steps) + STEP_TAG
    roles = ("system", "user", "assistant")
    messages = [{"role": r, "content": c} for r, c in zip(roles, ("Reason.", PROBLEM.prompt, steps), strict=True)]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == PROBLEM.prompt + steps
