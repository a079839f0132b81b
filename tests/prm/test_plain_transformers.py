"""What is trained here loads without this package: the lines that docs/coming_from_openrlhf.md prints are run."""

import re
from pathlib import Path

import prm_checkpoints
import pytest
import torch
from transformers import AutoModelForTokenClassification, AutoTokenizer

from rlhf_prm.prm import load_prm

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "coming_from_openrlhf.md").read_text()
PROBLEM, STEPS = "What is 2 + 3?", ["2 + 3 = 5.", "So it is 5."]


def test_the_qwen_layout_by_the_printed_lines(tmp_path):
    prm_checkpoints.qwen_prm(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert "rlhf_prm" not in code
    names = {"folder": str(tmp_path), "problem": PROBLEM, "steps": STEPS}
    exec(code, names)
    ((*expected,),) = (load_prm(tmp_path).score([PROBLEM], [STEPS])[0],)
    assert names["scores"].tolist() == pytest.approx(expected, abs=1e-5)


def test_another_decoder_by_its_own_class(tmp_path):
    prm_checkpoints.decoder_prm(tmp_path)
    tokenizer, model = (
        AutoTokenizer.from_pretrained(tmp_path),
        AutoModelForTokenClassification.from_pretrained(tmp_path),
    )
    answer = "<extra_0>".join(STEPS) + "<extra_0>"
    chat = [{"role": "user", "content": PROBLEM}, {"role": "assistant", "content": answer}]
    ids = tokenizer(tokenizer.apply_chat_template(chat, tokenize=False), add_special_tokens=False).input_ids
    with torch.no_grad():
        scores = model(torch.tensor([ids])).logits[0].softmax(-1)[:, 1]
    tag = tokenizer.convert_tokens_to_ids("<extra_0>")
    assert scores[torch.tensor(ids) == tag].tolist() == pytest.approx(
        load_prm(tmp_path).score([PROBLEM], [STEPS])[0], abs=1e-5
    )
