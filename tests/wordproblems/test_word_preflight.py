"""``rlhf-prm preflight --wordproblems``: the oracle is a perfect PRM there too."""

import json

from rlhf_prm.cli import main


def test_the_oracle_on_word_problems(word_world, tiny_settings, word_cache, tmp_path):
    page = tmp_path / "page.html"
    settings = json.dumps(tiny_settings)
    arguments = ["--wordproblems", settings, "--prm", "oracle", "--stage-cache", str(word_cache), "--problems", "6"]
    assert main(["preflight", *arguments, "--n", "3", "--probe-problems", "0", "--output", str(page)]) == 0
    measures = json.loads(page.with_suffix(".json").read_text())["measures"]
    assert measures["labelled_rollouts"] == 18 and measures["error_accuracy"] == 1.0
    assert "word problems" in page.read_text()


def test_two_worlds_are_one_too_many(capsys, tmp_path):
    assert main(["preflight", "--wordproblems", "{}", "--toyworld", "{}", "--output", str(tmp_path / "p.html")]) == 2
    assert "got --toyworld and --wordproblems" in capsys.readouterr().err
