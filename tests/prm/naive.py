"""How each PRM family is read, written out slowly: one rollout, one string, all logits, softmax at the marks.

Nothing here uses the code under test, apart from the model classes that transformers does not have.
"""

import re

import torch
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification, AutoTokenizer

from rlhf_prm.prm.qwen2 import Qwen2ForProcessRewardModel, Qwen2WithValueHead

SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."


def turn(role: str, content: str) -> str:
    return f"<|im_start|>{role}\n{content}<|im_end|>\n"


@torch.no_grad()
def all_logits(model, ids: list[int]) -> torch.Tensor:
    return model.eval()(torch.tensor([ids])).logits[0]


def qwen_prm(folder, problem, steps, system=SYSTEM):
    tokenizer, model = AutoTokenizer.from_pretrained(folder), Qwen2ForProcessRewardModel.from_pretrained(folder)
    answer = "<extra_0>".join(steps) + "<extra_0>"
    text = (turn("system", system) if system else "") + turn("user", problem) + turn("assistant", answer)
    ids = tokenizer(text).input_ids
    probabilities = all_logits(model, ids).softmax(-1)[:, 1].tolist()
    return [p for p, i in zip(probabilities, ids, strict=True) if i == tokenizer.convert_tokens_to_ids("<extra_0>")]


def reasonflux(folder, problem, steps):
    return qwen_prm(folder, problem, steps, system=None)


def math_shepherd(folder, problem, steps):
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    good, bad = tokenizer.encode("+ -")[1:]
    mark = tokenizer.encode("ки")[-1]
    lines = [f"Step {k}: {step} ки" for k, step in enumerate(steps, 1)]
    ids = tokenizer.encode(f"{problem} " + "\n".join(lines))
    probabilities = all_logits(model, ids)[:, [good, bad]].softmax(-1)[:, 0].tolist()
    return [p for p, i in zip(probabilities, ids, strict=True) if i == mark]


def rlhflow(folder, problem, steps):
    """The conversation grows by a turn for each step; "+" is predicted two tokens before the end."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    good, bad = tokenizer.encode("+")[-1], tokenizer.encode("-")[-1]
    conversation, scores = [], []
    for k, step in enumerate(steps):
        conversation.append({"role": "user", "content": f"{problem} {step}" if k == 0 else step})
        conversation.append({"role": "assistant", "content": "+"})
        text = tokenizer.apply_chat_template(conversation, tokenize=False)
        logits = all_logits(model, tokenizer(text, add_special_tokens=False).input_ids)
        scores.append(logits[-3, [good, bad]].softmax(-1)[0].item())
    return scores


def skywork(folder, problem, steps):
    """As the authors' code: the text of the answer cut at every line break, each line and a line break as tokens.

    A blank line gives a line break alone. A value at every line break; a step's is that of its last line with text.
    """
    tokenizer, model = AutoTokenizer.from_pretrained(folder), Qwen2WithValueHead.from_pretrained(folder)
    ids, flags = tokenizer.encode(tokenizer.bos_token + problem + "\n"), []
    (newline,) = tokenizer.encode("\n")
    characters, last_line = 0, {}
    for line in "\n\n".join(steps).split("\n"):
        ids += [*(tokenizer.encode(line) if line != "" else []), newline]
        characters += len(line) + 1
        last_line[characters] = len(ids) - 1
    done = 0
    for step in steps:
        done += len(step) + 1
        flags.append(last_line[done])
        done += 1
    return all_logits(model, ids)[flags, 0].sigmoid().tolist()


def token_classification(folder, problem, steps):
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForTokenClassification.from_pretrained(folder)
    (newline,) = tokenizer.encode("\n")
    ids, flags = tokenizer.encode(problem), []
    for step in steps:
        ids += [*tokenizer.encode(step), newline]
        flags.append(len(ids) - 1)
    return all_logits(model, ids)[flags].softmax(-1)[:, 1].tolist()


def decoder_prm(folder, problem, steps):
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForTokenClassification.from_pretrained(folder)
    answer = "<extra_0>".join(steps) + "<extra_0>"
    chat = [{"role": "user", "content": problem}, {"role": "assistant", "content": answer}]
    ids = tokenizer(tokenizer.apply_chat_template(chat, tokenize=False), add_special_tokens=False).input_ids
    probabilities = all_logits(model, ids).softmax(-1)[:, 1].tolist()
    return [p for p, i in zip(probabilities, ids, strict=True) if i == tokenizer.convert_tokens_to_ids("<extra_0>")]


def implicit(folder, reference, problem, steps, beta=0.001):
    """σ(β·Σ(log π − log π_ref)) over the answer's tokens up to the one that holds the step's last character."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    answer = "\n\n".join(f"Step {k}: {step}" for k, step in enumerate(steps, 1))
    text = turn("user", problem) + turn("assistant", answer)
    encoded = tokenizer(text, return_offsets_mapping=True)
    ids, offsets = encoded.input_ids, encoded.offset_mapping
    begin = text.index(answer)
    log_probs = []
    for name in (folder, reference):
        logits = all_logits(AutoModelForCausalLM.from_pretrained(name), ids).log_softmax(-1)
        log_probs.append([0.0] + [logits[t - 1, ids[t]].item() for t in range(1, len(ids))])
    ends = [match.end() for match in re.finditer(r".*?(?=\n\nStep \d+:|$)", answer, re.S) if match.group()]
    scores = []
    for end in ends:
        total = sum(
            log_probs[0][t] - log_probs[1][t] for t, (start, _) in enumerate(offsets) if begin <= start < begin + end
        )
        scores.append(torch.sigmoid(torch.tensor(beta * total)).item())
    return scores


def causal_tag(folder, problem, steps):
    """A causal LM trained by somebody else: "<step>" after each step, "+" against "-" there."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    (good,), (bad,) = tokenizer.encode("+"), tokenizer.encode("-")
    ids = tokenizer.encode(problem + "\n" + "".join(f"{step}<step>" for step in steps))
    probabilities = all_logits(model, ids)[:, [good, bad]].softmax(-1)[:, 0].tolist()
    return [p for p, i in zip(probabilities, ids, strict=True) if i == tokenizer.convert_tokens_to_ids("<step>")]
