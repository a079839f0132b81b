"""``rlhf-prm score``: rows in, the same rows with scores out."""

import json

import pytest
from prm_checkpoints import qwen_prm
from prm_rollouts import ragged

from rlhf_prm.cli import main
from rlhf_prm.evaluation.score_shards import ScoreShards
from rlhf_prm.prm import load_prm


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return qwen_prm(tmp_path_factory.mktemp("qwen"))


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_scores_lists_and_texts_in_their_order(folder, tmp_path, capsys):
    problems, steps = ragged()
    rows = [{"id": i, "problem": p, "steps": s} for i, (p, s) in enumerate(zip(problems, steps, strict=True))]
    rows[2] = {"id": 2, "prompt": problems[2], "completion": "\n\n".join(steps[2])}
    rows[4] = {"id": 4, "question": problems[4], "response": "\n\n".join(steps[4])}
    path = write(tmp_path / "rollouts.jsonl", rows)
    assert main(["score", "--prm", str(folder), "--input", str(path), "--chunk", "4"]) == 0
    out = [json.loads(line) for line in (tmp_path / "rollouts.scored.jsonl").read_text().splitlines()]
    expected = load_prm(folder).score(problems, steps)
    assert [{k: v for k, v in row.items() if k != "step_scores"} for row in out] == rows
    assert [row["step_scores"] for row in out] == [pytest.approx(row, abs=1e-5) for row in expected]
    assert "6 rollouts (0 duplicates) by family qwen_prm" in capsys.readouterr().out


def test_a_step_without_a_score_is_null(folder, tmp_path):
    path = write(tmp_path / "in.jsonl", [{"problem": "What is 2 + 3?", "steps": ["5", "and " * 200]}])
    arguments = ["--prm", str(folder), "--input", str(path), "--output", str(tmp_path / "o"), "--max-length", "150"]
    with pytest.warns(UserWarning, match="past the PRM's context"):
        assert main(["score", *arguments]) == 0
    scores = json.loads((tmp_path / "o").read_text())["step_scores"]
    assert 0 < scores[0] < 1 and scores[1] is None


def test_shards_of_another_problem_column_or_separator_are_other_shards(tmp_path, monkeypatch):
    hashes = []
    monkeypatch.setattr(ScoreShards, "run", lambda self, total, **workers: hashes.append(self.hash))
    path = write(tmp_path / "in.jsonl", [{"problem": "a", "title": "b", "steps": ["c"]}])
    keywords = ["--prm-kwargs", '{"max_length": 64}']  # one that also is an argument
    for more in ([], [], ["--problem-column", "title"], ["--separator", "x"]):
        assert main(["score", "--prm", "prm", "--input", str(path), "--runner", "ray", *keywords, *more]) == 0
    assert hashes[0] == hashes[1] and len(set(hashes)) == 3


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"problem": "a"}', "in.jsonl:2: no steps: the row has problem; expected one of steps, completions"),
        ("{", "in.jsonl:2: not JSON"),
        ('{"steps": []}', "in.jsonl:2: no problem: got nothing, expected a text in the column problem or prompt"),
    ],
)
def test_a_bad_row_is_named(folder, tmp_path, capsys, line, complaint):
    path = tmp_path / "in.jsonl"
    path.write_text('{"problem": "a", "steps": ["b"]}\n' + line + "\n")
    assert main(["score", "--prm", str(folder), "--input", str(path)]) == 2
    assert complaint in capsys.readouterr().err
