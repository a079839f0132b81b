"""Labels at other thresholds from stored hits, verdicts as labels, and completers of their own."""

import json

import pytest
from test_annotate_command import MODELS, PLUGGED, annotate, no_bar, problems  # noqa: F401  (fixtures)

from rlhf_prm.annotate.config import read_config
from rlhf_prm.annotate.relabel import relabelled
from rlhf_prm.step_data import StepLabels, read_rows

RATES = StepLabels([True, True, True, False], [1.0, 0.25, 0.5, 0.0], "monte_carlo")


def test_a_threshold_by_hand():
    """Hit rates 1, 1/4, 1/2, 0: above 1/4 the second step is the first wrong one, and nothing stands behind it."""
    assert relabelled(RATES, 0.0) == RATES
    assert relabelled(RATES, 0.0, "hard").soft_labels == [1.0, 1.0, 1.0, 0.0]
    assert relabelled(RATES, 0.25) == StepLabels([True, False], [1.0, 0.25], "monte_carlo")
    assert relabelled(RATES, 0.2, "hard").labels == [True, True, True, False]
    with pytest.raises(ValueError, match="kind 'both', expected one of hard, soft"):
        relabelled(RATES, 0.0, "both")


def arguments(tmp_path, problems, *more):  # noqa: F811
    return ["--problems", problems, "--out", tmp_path / "out", *MODELS, *PLUGGED, "--num-responses", 2, *more]


def test_a_folder_is_relabelled_without_a_call(tmp_path, problems, monkeypatch, capsys):  # noqa: F811
    """The labels are those of a run that had the threshold from the start, and so is the consensus."""
    calls = tmp_path / "calls"
    monkeypatch.setenv("ANNOTATE_CALLS", str(calls))
    assert annotate("all", *arguments(tmp_path, problems, "--num-completions", 4)) == 0
    before = calls.read_text()
    out = tmp_path / "out"
    assert annotate("relabel", "--out", out, "--threshold", 0, 0.25, 0.5) == 0
    assert annotate("relabel", "--out", out, "--threshold", 0.25, "--hard", "--output", tmp_path / "hard") == 0
    assert calls.read_text() == before
    assert "consensus_soft_0.5.jsonl" in capsys.readouterr().out
    new = out / "relabelled"
    assert (new / "monte_carlo_soft_0.jsonl").read_text() == (out / "monte_carlo.jsonl").read_text()
    assert (new / "consensus_soft_0.jsonl").read_text() == (out / "consensus.jsonl").read_text()
    for stage in ("monte-carlo", "consensus"):
        annotate(stage, *arguments(tmp_path, problems, "--num-completions", 4, "--threshold", 0.25))
    soft = list(read_rows(new / "monte_carlo_soft_0.25.jsonl"))
    assert soft == list(read_rows(out / "monte_carlo.jsonl"))
    assert (new / "consensus_soft_0.25.jsonl").read_text() == (out / "consensus.jsonl").read_text()
    assert json.loads((new / "consensus_soft_0.25_report.json").read_text()) == json.loads(
        (out / "consensus_report.json").read_text()
    )
    hard = list(read_rows(tmp_path / "hard" / "monte_carlo_hard_0.25.jsonl"))
    assert [row["labels"] for row in hard] == [row["labels"] for row in soft]
    assert all(row["soft_labels"] == [float(label) for label in row["labels"]] for row in hard)
    assert any(0 < rate < 1 for row in soft for rate in row["soft_labels"])


def test_a_lower_threshold_than_was_sampled_needs_sampling(tmp_path, problems, capsys):  # noqa: F811
    more = ("--num-completions", 4, "--threshold", 0.6)
    for stage in ("sample", "monte-carlo"):
        assert annotate(stage, *arguments(tmp_path, problems, *more)) == 0
    assert annotate("relabel", "--out", tmp_path / "out", "--threshold", 0.75) == 0
    assert annotate("relabel", "--out", tmp_path / "out", "--threshold", 0) == 2
    assert "too few for the threshold 0: sample the rest with" in capsys.readouterr().err


def test_labels_of_the_first_problems_are_relabelled_with_their_limit(tmp_path, problems, capsys):  # noqa: F811
    """Two responses of each of two policies to two of six problems."""
    assert annotate("sample", *arguments(tmp_path, problems)) == 0
    assert annotate("monte-carlo", *arguments(tmp_path, problems, "--limit", 2)) == 0
    assert annotate("relabel", "--out", tmp_path / "out", "--limit", 2) == 0
    assert len(list(read_rows(tmp_path / "out" / "relabelled" / "monte_carlo_soft_0.jsonl"))) == 2 * 2 * 2
    assert annotate("relabel", "--out", tmp_path / "out") == 2
    assert "solution 0000002.0.0 has 0 of" in capsys.readouterr().err


def test_given_solutions_are_named_and_must_be_the_same(tmp_path, capsys):
    path, out = tmp_path / "solutions.jsonl", tmp_path / "out"
    rows = [{"problem": "p", "steps": ["step 1", "step 2", "so \\boxed{7}"], "answer": "7"}] * 2
    path.write_text("\n".join(map(json.dumps, rows)))
    assert annotate("monte-carlo", "--solutions", path, "--out", out, *MODELS, *PLUGGED) == 0
    assert annotate("relabel", "--out", out, "--solutions", path) == 0
    assert (out / "relabelled" / "monte_carlo_soft_0.jsonl").read_text() == (out / "monte_carlo.jsonl").read_text()
    assert annotate("relabel", "--out", out) == 2
    assert "name it with --solutions" in capsys.readouterr().err
    path.write_text(json.dumps(rows[0]))
    assert annotate("relabel", "--out", out, "--solutions", path) == 2
    assert "is not the file that was labelled" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["relabel"], "relabel needs --out"),
        (["relabel", "--out", "nowhere"], "holds no Monte-Carlo estimates"),
        (["relabel", "--out", "nowhere", "--model", "m"], "relabel samples nothing"),
        (["relabel", "--out", "nowhere", "--dry-run"], "relabel samples nothing: got --dry-run, expected --out"),
        (["relabel", "--out", "nowhere", "--push-to-hub", "a/b"], "got --push-to-hub, expected"),
        (["relabel", "--out", "nowhere", "--go-on", "--seed", 0], "got --seed, --go-on, expected"),
        (["relabel", "--out", "nowhere", "--endpoint", "http://x", "--max-tokens", 8], "got --endpoint, --max-tokens,"),
        (
            ["monte-carlo", "--out", "o", "--problems", "p", "--threshold", 0, 0.5],
            "expected one; relabel takes several",
        ),
        (["monte-carlo", "--out", "o", "--problems", "p", "--hard"], "go with relabel only"),
        (["sample", "--out", "o", "--problems", "p", "--own-completers"], "--own-completers needs --model"),
    ],
)
def test_refused(more, message, capsys):
    assert annotate(*more) == 2
    assert message in capsys.readouterr().err


def test_verdicts_become_labels_at_every_step(tmp_path):
    path = tmp_path / "solutions.jsonl"
    rows = [
        {"problem": "p", "steps": ["step 1", "so \\boxed{7}"], "answer": "7"},
        {"problem": "p", "response": "step 1\n\nstep 2\n\nso \\boxed{8}", "answer": "7"},
        {"problem": "p", "answer": "7"},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert annotate("outcome", "--solutions", path, "--out", tmp_path / "out", *PLUGGED[2:]) == 0
    labelled = list(read_rows(tmp_path / "out" / "outcome.jsonl"))
    assert [(row["labels"], row["source"]) for row in labelled] == [([True] * 2, "outcome"), ([False] * 3, "outcome")]


def test_verdicts_on_samples(tmp_path, problems):  # noqa: F811
    for stage in ("sample", "outcome"):
        assert annotate(stage, *arguments(tmp_path, problems)) == 0
    rows = list(read_rows(tmp_path / "out" / "outcome.jsonl"))
    assert len(rows) == 6 * 2 * 2
    assert all(set(row["labels"]) == {row["completions"][-1].endswith("{7}")} for row in rows)


class NamedGenerator:
    """Two steps as a sample; a completion says which model wrote it, and only model "two" is ever right."""

    def __init__(self, config, concurrency):
        self.name = config.model

    def generate(self, prompts, n, *, seed=None, stop=None):
        box = "\\boxed{7}" if self.name == "two" else "\\boxed{8}"
        return [[box if "step" in prompt else f"step\n\n{box}"] * n for prompt in prompts]


def test_each_policy_can_have_a_completer_of_its_own(tmp_path, problems):  # noqa: F811
    backend = ["--backend", "test_relabel.NamedGenerator", *PLUGGED[2:]]
    common = ["--problems", problems, "--num-responses", 1, *MODELS[:3], "--template", "plain", *backend]
    labels = {}
    for name, more in {"first": [], "own": ["--own-completers"]}.items():
        for stage in ("sample", "monte-carlo"):
            assert annotate(stage, "--out", tmp_path / name, *common, *more) == 0
        rows = list(read_rows(tmp_path / name / "monte_carlo.jsonl"))
        labels[name] = [row["soft_labels"] for row in rows]
    assert labels["first"] == [[0.0, 0.0], [0.0, 0.0]] * 6  # "one" completes both, and is never right
    assert labels["own"] == [[0.0, 0.0], [1.0, 1.0]] * 6  # in the order of the problems, "two" completes its own
    assert sorted(path.name for path in (tmp_path / "own").glob("monte_carlo-*")) == ["monte_carlo-0", "monte_carlo-1"]
    assert annotate("relabel", "--out", tmp_path / "own") == 0
    again = list(read_rows(tmp_path / "own" / "relabelled" / "monte_carlo_soft_0.jsonl"))
    assert [row["soft_labels"] for row in again] == labels["own"]


def test_a_consensus_with_completers_of_their_own(tmp_path, problems):  # noqa: F811
    pipeline = [*arguments(tmp_path, problems), "--own-completers"]
    assert annotate("all", *pipeline) == 0
    report = json.loads((tmp_path / "out" / "consensus_report.json").read_text())
    assert report["pairs"] == 24 and report["kept"] > 0


def test_completers_are_as_many_as_policies():
    model = {"model": "m", "backend": "annotate_plugin.SeededGenerator", "template": "plain"}
    settings = {"out": "o", "problems": "p", "policies": [model, model]}
    with pytest.raises(ValueError, match="got 1 for 2 policies, expected one for each"):
        read_config(None, settings | {"completers": [model]})
    with pytest.raises(ValueError, match="they do not go with completer"):
        read_config(None, settings | {"completers": [model, model], "completer": model})
