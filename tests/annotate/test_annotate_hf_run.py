"""The whole command in this process: a tiny Transformers model from a folder, the real verifier, the progress bar."""

import json
import re
from types import SimpleNamespace

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from rlhf_prm.annotate.progress import Progress
from rlhf_prm.cli import main
from rlhf_prm.generation.endpoint import EndpointGenerator
from rlhf_prm.generation.templates import ChatTemplate
from rlhf_prm.step_data import read_rows
from tests.tiny_models import saved, word_tokenizer

WORDS = ["<pad>", "<eos>", "\\boxed{1}", "\\boxed{2}", "then", "so"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    fast = word_tokenizer(WORDS, r"\\boxed\{\d\}|then|so", unknown="so", bos_token="so")
    fast.chat_template = "so {% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    sizes = {"num_hidden_layers": 1, "intermediate_size": 16, "num_key_value_heads": 2}
    return saved(tmp_path_factory.mktemp("tiny"), fast, **sizes)


def test_problems_to_labels(tmp_path, folder):
    problems = tmp_path / "problems.jsonl"
    problems.write_text("".join(json.dumps({"question": f"{i} ?", "answer": "1"}) + "\n" for i in range(4)))
    arguments = ["--problems", problems, "--out", tmp_path / "out", "--model", folder, "--template", "chat"]
    arguments += ["--num-responses", 3, "--max-tokens", 6, "--separator", "then", "--num-completions", 4]
    for stage in ("sample", "monte-carlo"):
        assert main(["annotate", stage, *map(str, arguments)]) == 0
    rows = list(read_rows(tmp_path / "out" / "monte_carlo.jsonl"))
    empty = (tmp_path / "out" / "monte_carlo" / "rejected.jsonl").read_text().splitlines()
    assert len(rows) + len(empty) == 12 and len({len(row["labels"]) for row in rows}) > 1
    assert all("no steps" in line for line in empty)
    records = [json.loads(line) for line in (tmp_path / "out" / "monte_carlo" / "00000.jsonl").open()]
    assert {status for record in records for status in record["statuses"]} >= {"correct", "incorrect"}
    for row in rows:  # the last step's label is the verdict on the whole solution
        boxes = re.findall(r"\\boxed\{(\d)\}", "".join(row["completions"]))
        if all(row["labels"][:-1]):
            assert row["labels"][-1] == (boxes[-1:] == ["1"])


def test_the_first_token_is_left_out_of_the_template_if_the_tokenizer_adds_it(folder, tmp_path):
    text = ChatTemplate(str(folder))("2 + 2 ?")
    assert text.startswith("so system: Please reason") and text.endswith("user: 2 + 2 ?\n")
    adding = PreTrainedTokenizerFast.from_pretrained(folder)
    adding.backend_tokenizer.post_processor = TemplateProcessing(single="so $A", special_tokens=[("so", 5)])
    adding.save_pretrained(tmp_path / "adding")
    assert ChatTemplate(str(tmp_path / "adding"))("2 + 2 ?") == text.removeprefix("so")


def test_a_first_token_that_opens_a_turn_stays(tmp_path):
    """SmolLM2's BOS token is <|im_start|>, which its tokenizer does not put before a text."""
    turn = "{% for m in messages %}<|im_start|>{{ m['content'] }}<eos>{% endfor %}"
    words = ["<pad>", "<eos>", "<|im_start|>", "a"]
    opening = word_tokenizer(words, unknown="a", added=["<|im_start|>", "<eos>"], bos_token="<|im_start|>")
    opening.chat_template = turn + "{% if add_generation_prompt %}<|im_start|>{% endif %}"
    opening.save_pretrained(tmp_path)
    text = ChatTemplate(str(tmp_path), system="a")("a")
    assert text == "<|im_start|>a<eos><|im_start|>a<eos><|im_start|>"
    assert opening(text)["input_ids"] == [2, 3, 1, 2, 3, 1, 2]


def test_a_tokenizer_without_a_template(folder, tmp_path):
    bare = PreTrainedTokenizerFast.from_pretrained(folder)
    bare.chat_template = None
    bare.save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(ValueError, match="has no chat template"):
        ChatTemplate(str(tmp_path))


def test_the_rate_counts_only_what_this_run_did():
    stage = SimpleNamespace(name="judge", unit="solution", model=SimpleNamespace(model="m"))
    generator = EndpointGenerator("m", ["http://x/v1"])
    with Progress(stage, 10) as progress:
        progress.watch(generator)
        for _ in range(4):
            progress.known_one()
        progress.known_one(rejected=True)
        progress.finished_one()
        generator.usage.answered, generator.usage.failures["timeout"] = 7, 2
        assert progress.rejected_one() == 1
        bar = progress.bar
        assert (bar.done, bar.known, progress.done) == (2, 5, 5)
        bar.started -= 100  # two rows in about 100 s: three more take about 150
        assert bar.line() == ("judge m: 7 of 10 solutions in 100 s, 150 s left, calls 7, repeated 2, set aside 1")
