"""The whole command in this process: a tiny Transformers model from a folder, the real verifier, the progress bar."""

import json
import re
from types import SimpleNamespace

import pytest
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


def test_the_tokenizers_template_without_its_first_token(folder, tmp_path):
    text = ChatTemplate(str(folder))("2 + 2 ?")
    assert text.startswith(" system: Please reason") and text.endswith("user: 2 + 2 ?\n")
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
