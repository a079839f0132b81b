"""The command: whole runs, what it prints before it starts, what it sets aside, what it refuses."""

import argparse
import json
import time

import pytest
import yaml

from rlhf_prm.annotate.command import add_arguments, config_of
from rlhf_prm.annotate.config import read_config
from rlhf_prm.annotate.estimate import estimate, table
from rlhf_prm.annotate.pipeline import NOTHING_WORKS, Pipeline
from rlhf_prm.cli import main
from rlhf_prm.generation.config import GeneratorConfig
from rlhf_prm.generation.drivers import check_answers
from rlhf_prm.step_data import read_rows, write_rows

MODELS = ["--model", "one", "two", "--judge-model", "judge", "--template", "plain"]
PLUGGED = ["--backend", "annotate_plugin.SeededGenerator", "--verifier", "annotate_plugin.LastBoxVerifier"]
GOOD = [{"problem": f"What is {i}?", "answer": "7"} for i in range(6)]


@pytest.fixture(autouse=True)
def no_bar(monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")


@pytest.fixture
def problems(tmp_path):
    path = tmp_path / "problems.jsonl"
    bad = ["{", json.dumps({"problem": "no gold"}), json.dumps({"answer": "7"}), "[1, 2]"]
    path.write_text("\n".join([*map(json.dumps, GOOD), *bad]))
    return path


def annotate(stage, *args):
    return main(["annotate", stage, *map(str, args)])


def test_a_whole_run(tmp_path, problems, capsys):
    arguments = ["--problems", problems, "--out", tmp_path / "out", *MODELS, *PLUGGED, "--num-responses", 2]
    assert annotate("all", *arguments) == 0
    printed = capsys.readouterr().out
    assert "left to do" in printed and "assumed: 8 steps" in printed and "kept " in printed
    assert "set aside      1  problems.jsonl:8: no gold answer" in printed
    for name in ("monte_carlo", "judge", "consensus"):
        rows = list(read_rows(tmp_path / "out" / f"{name}.jsonl"))
        assert rows and {row["source"] for row in rows} == {name}
    assert len(list(read_rows(tmp_path / "out" / "monte_carlo.jsonl"))) == 6 * 2 * 2
    rejected = [json.loads(line) for line in (tmp_path / "out" / "sample-0" / "rejected.jsonl").open()]
    assert [row["id"] for row in rejected] == [f"{number:07d}.0" for number in range(6, 10)]
    reasons = " ".join(row["reason"] for row in rejected)
    for part in ("problems.jsonl:7: not JSON", ":8: no gold answer", ":9: no problem: got nothing", ":10: got a list"):
        assert part in reasons
    report = json.loads((tmp_path / "out" / "consensus_report.json").read_text())
    assert report["pairs"] == 24 and report["kept"] == len(list(read_rows(tmp_path / "out" / "consensus.jsonl")))
    assert report["kept"] + sum(report["dropped"].values()) == 24

    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.json*")}
    assert annotate("all", *arguments) == 0  # nothing is left to do
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.json*")} == before
    assert annotate("sample", *arguments, "--num-responses", 3) == 2
    assert "num_responses: 2 there, 3 now" in capsys.readouterr().err


def test_stages_one_by_one_equal_all(tmp_path, problems):
    arguments = ["--problems", problems, *MODELS, *PLUGGED, "--num-responses", 2]
    annotate("all", "--out", tmp_path / "a", *arguments)
    for stage in ("sample", "monte-carlo", "judge", "consensus"):
        assert annotate(stage, "--out", tmp_path / "b", *arguments, "--concurrency", 3) == 0
    for name in ("monte_carlo.jsonl", "judge.jsonl", "consensus.jsonl", "consensus_report.json"):
        assert (tmp_path / "a" / name).read_text() == (tmp_path / "b" / name).read_text()


def test_a_yaml_file_and_flags_over_it(tmp_path, problems):
    model = {"model": "one", "backend": "annotate_plugin.SeededGenerator", "template": "plain"}
    settings = {
        "problems": str(problems),
        "out": str(tmp_path / "out"),
        "policies": [model],
        "verifier": "annotate_plugin.LastBoxVerifier",
        "num_responses": 4,
        "stop_at_first_miss": False,
    }
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(settings))
    assert annotate("sample", "--config", tmp_path / "x.yaml", "--num-responses", 1, "--limit", 2) == 0
    assert annotate("monte-carlo", "--config", tmp_path / "x.yaml", "--num-responses", 1) == 0
    rows = list(read_rows(tmp_path / "out" / "monte_carlo.jsonl"))
    assert len(rows) == 2
    records = [json.loads(line) for line in (tmp_path / "out" / "monte_carlo" / "00000.jsonl").open()]
    assert len(records) == sum(len(row["completions"]) for row in rows)  # every step, misses or not


def test_the_limit_holds_for_sampled_solutions_too(tmp_path, problems):
    """Six problems are sampled twice by each of two policies, in shards of two problems; three of them are labelled."""
    arguments = ["--problems", problems, "--out", tmp_path / "out", *MODELS, *PLUGGED]
    arguments += ["--num-responses", 2, "--shard-size", 2]
    assert annotate("sample", *arguments) == 0
    for stage in ("monte-carlo", "judge", "consensus", "outcome"):
        assert annotate(stage, *arguments, "--limit", 3) == 0
    for name in ("monte_carlo", "judge", "outcome"):
        rows = list(read_rows(tmp_path / "out" / f"{name}.jsonl"))
        assert [row["prompt"] for row in rows] == [one["problem"] for one in GOOD[:3] for _ in range(2 * 2)]
    assert json.loads((tmp_path / "out" / "consensus_report.json").read_text())["pairs"] == 3 * 2 * 2
    assert annotate("monte-carlo", *arguments) == 0
    assert len(list(read_rows(tmp_path / "out" / "monte_carlo.jsonl"))) == 6 * 2 * 2


def test_given_solutions_are_labelled(tmp_path):
    path = tmp_path / "solutions.jsonl"
    rows = [
        {"problem": "p", "steps": ["step 1", "so \\boxed{7}"], "answer": "7", "label": -1},
        {"problem": "p", "response": "step 1\n\nstep 2\n\nso \\boxed{8}", "answer": "7"},
        {"problem": "p", "answer": "7"},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    arguments = ["--solutions", path, "--out", tmp_path / "out", *MODELS, *PLUGGED]
    assert (
        annotate("monte-carlo", *arguments) == annotate("judge", *arguments) == annotate("consensus", *arguments) == 0
    )
    labelled = list(read_rows(tmp_path / "out" / "monte_carlo.jsonl"))
    assert [row["completions"] for row in labelled] == [rows[0]["steps"], ["step 1", "step 2", "so \\boxed{8}"]]
    assert labelled[0]["labels"][-1] is True and labelled[1]["labels"][-1] is False
    assert "no steps" in (tmp_path / "out" / "monte_carlo" / "rejected.jsonl").read_text()


def test_consensus_waits_for_both(tmp_path, problems, capsys):
    arguments = ["--problems", problems, "--out", tmp_path / "out", *MODELS, *PLUGGED, "--num-responses", 1]
    for stage in ("sample", "judge"):
        annotate(stage, *arguments)
    assert annotate("consensus", *arguments) == 2
    assert "monte_carlo has not labelled solution 0000000.0.0" in capsys.readouterr().err


MODEL = {"model": "m", "backend": "annotate_plugin.SeededGenerator", "template": "plain", "max_tokens": 100}


def plugged_config(tmp_path, source, **settings):
    keys = {"problems": str(source), "out": str(tmp_path / "out"), "policies": [MODEL], "judge": MODEL}
    return read_config(None, keys | {"verifier": "annotate_plugin.LastBoxVerifier"} | settings)


def test_estimate_by_hand(tmp_path):
    path = tmp_path / "solutions.jsonl"
    steps = ["a" * 35, "b" * 70, "c" * 35]  # 10, 20 and 10 tokens
    path.write_text(json.dumps({"problem": "p" * 35, "steps": steps, "answer": "7"}))
    config = plugged_config(tmp_path, path, problems=None, solutions=str(path), num_completions=4, votes=2)
    pipeline = Pipeline(config)
    (stage,), (judging,) = pipeline.stages("monte_carlo"), pipeline.stages("judge")
    e = estimate(stage, pipeline.rows(stage), pipeline.shards(stage), config)
    assert (e.rows, e.done, e.calls) == (1, 0, 2)  # the last step is verified, not continued
    assert (e.prompt_tokens, e.new_prompt_tokens) == (20 + 40, 20 + 20)
    assert (e.completion_tokens, e.most_completion_tokens) == (4 * 30 + 4 * 10, 2 * 4 * 100)
    j = estimate(judging, pipeline.rows(judging), pipeline.shards(judging), config)
    assert (j.calls, j.prompt_tokens, j.new_prompt_tokens) == (2, 2 * 300, 300)
    assert "monte_carlo" in table([e, j])
    pipeline.run("monte_carlo")
    e = estimate(stage, pipeline.rows(stage), pipeline.shards(stage), config)
    assert (e.done, e.calls) == (1, 0)


def test_calls_never_exceed_the_estimate(tmp_path, problems, monkeypatch):
    monkeypatch.setenv("ANNOTATE_CALLS", str(tmp_path / "calls"))
    pipeline = Pipeline(plugged_config(tmp_path, problems, stop_at_first_miss=False))
    pipeline.run("sample")
    (stage,) = pipeline.stages("monte_carlo")
    wanted = estimate(stage, pipeline.rows(stage), pipeline.shards(stage), pipeline.config).calls
    before = len((tmp_path / "calls").read_text().splitlines())
    pipeline.run("monte_carlo")
    assert len((tmp_path / "calls").read_text().splitlines()) - before == wanted


def test_dry_run_writes_no_records(tmp_path, problems, capsys):
    arguments = ["--problems", problems, "--out", tmp_path / "out", *MODELS, *PLUGGED, "--dry-run"]
    assert annotate("all", *arguments) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["sample-0", "10", "4", "6"] in [line[:4] for line in lines]
    assert list((tmp_path / "out").iterdir()) == []


class Hopeless:
    def __init__(self, config, concurrency):
        pass

    def generate(self, prompts, n, *, seed=None, stop=None):
        from rlhf_prm.annotate import GenerationError

        raise GenerationError("status 400: unknown field seed")


def test_when_nothing_works_the_run_stops(tmp_path):
    path = tmp_path / "problems.jsonl"
    path.write_text("\n".join(json.dumps({"problem": f"p{i}", "answer": "7"}) for i in range(NOTHING_WORKS + 20)))
    hopeless = MODEL | {"backend": "test_annotate_command.Hopeless"}
    broken = Pipeline(plugged_config(tmp_path, path, policies=[hopeless], concurrency=4))
    with pytest.raises(ValueError, match=r"first 50 rows all failed, the last with: status 400.*--retry-rejected"):
        broken.run("sample")
    mended = plugged_config(tmp_path, path, retry_rejected=True)
    Pipeline(mended).run("sample")
    assert len((tmp_path / "out" / "sample-0" / "00000.jsonl").read_text().splitlines()) == NOTHING_WORKS + 20


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"polices": []}, "unknown keys polices; known are attempts"),
        ({}, "either problems"),
        ({"out": None}, "out: got None, expected str"),
        ({"problems": "x", "num_responses": "8"}, "num_responses: got '8', expected int"),
        ({"problems": "x", "votes": True}, "votes: got True, expected int"),
        ({"problems": "x", "threshold": "low"}, "threshold: got 'low', expected float"),
        ({"problems": "x", "solutions": "y"}, "either problems"),
        ({"problems": "x", "shard_size": 0}, "shard_size: got 0"),
        ({"problems": "x", "threshold": 2.0}, "threshold: got 2"),
        ({"problems": "x", "separator": ""}, "step separator"),
        ({"problems": "x", "policies": [{"endpoints": []}]}, "policies: missing model"),
        ({"problems": "x", "policies": [{"model": "m", "backend": "endpoint"}]}, "does not go with endpoints"),
        ({"problems": "x", "policies": [{"model": "m", "extra_body": {"k": 1}}]}, "extra_body is for endpoints"),
        ({"problems": "x", "policies": [{"model": "m", "top_p": 0.0}]}, "top_p 0"),
    ],
)
def test_refused_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        read_config(None, {"out": "o"} | settings)


def test_refused_commands(tmp_path, capsys):
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"problem": "p", "steps": ["s"], "answer": "7"}))
    for arguments, message in [
        (["sample", "--problems", tmp_path / "none.jsonl", "--model", "m"], "no file"),
        (["sample", "--problems", "x.jsonl", "--endpoint", "http://x"], "--endpoint needs --model"),
        (["judge", "--problems", "x.jsonl", "--judge-endpoint", "http://x"], "--judge-endpoint needs --judge-model"),
        (["judge", "--solutions", path], "expected a model that judges"),
        (["sample", "--solutions", path, "--model", "m"], "expected problems and at least one policy"),
        (["all", "--config", tmp_path / "none.yaml"], "no such file"),
        (["sample", "--config", "x", "--temperature", 0], "got --temperature without --model, expected both"),
        (["judge", "--judge-model", "j", "--template", "chat"], "got --template without --model, expected both"),
        (["all", "--config", "x", "--backend", "hf"], "got --backend without --model or --judge-model"),
        (["all", "--config", "x", "--max-tokens", 8], "for a model that --config names, write it beside the name"),
    ]:
        assert annotate(*arguments, "--out", tmp_path / "out") == 2
        assert message in capsys.readouterr().err


def test_models_named_by_flags_have_the_settings_of_the_flags_or_the_usual_ones():
    """Without flags: the backend and length of ``GeneratorConfig``; the judge's template and temperature stay."""

    def models(*flags):
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        given = ["all", "--out", "o", "--problems", "p", "--model", "m", "--judge-model", "j", *flags]
        config = config_of(parser.parse_args(given))
        return [(m.backend, m.template, m.temperature, m.max_tokens) for m in (*config.policies, config.judge)]

    assert models() == [("hf", "chat", 1.0, 2048)] * 2
    flags = ["--backend", "vllm", "--template", "plain", "--temperature", "0", "--max-tokens", "9"]
    assert models(*flags) == [("vllm", "plain", 0.0, 9), ("vllm", "chat", 1.0, 9)]


def test_a_mended_judge_is_asked_again(tmp_path, monkeypatch, capsys):
    """Three solutions: the judge's server writes nonsense, then it is mended. What it agreed on before stands."""
    path = tmp_path / "solutions.jsonl"
    path.write_text("\n".join(json.dumps({"problem": f"p{i}", "steps": ["a", "b"], "answer": "7"}) for i in range(3)))
    judge = ["judge", "--solutions", path, "--out", tmp_path / "out", "--judge-model", "m"]
    judge += ["--backend", "test_annotate_command.FickleJudge"]
    for answer in ("Hm.", "Hm.", "<analysis_1>x</analysis_1><conclusion>Incorrect</conclusion>"):
        monkeypatch.setattr(FickleJudge, "answer", answer)
        assert annotate(*judge, *(["--retry-rejected"] if answer != "Hm." else [])) == 0
    assert [row["labels"] for row in read_rows(tmp_path / "out" / "judge.jsonl")] == [[False, False]] * 3
    assert "judge                   3          0           3" in capsys.readouterr().out  # the estimate counts them
    assert FickleJudge.calls == 3 * 3 + 3  # three attempts each, none for what is written, then one each


class FickleJudge:
    answer, calls = "", 0

    def __init__(self, config, concurrency):
        pass

    def generate(self, prompts, n, *, seed, stop):  # no defaults: as documented
        FickleJudge.calls += len(prompts)
        return [[self.answer] * n for _ in prompts]


def test_a_tie_is_an_answer_and_is_not_asked_again(tmp_path):
    settings = plugged_config(tmp_path, tmp_path / "x", problems=None, solutions=str(tmp_path / "s.jsonl"), votes=2)
    (tmp_path / "s.jsonl").write_text("{}")
    (stage,) = Pipeline(settings).stages("judge")
    tie = [{"vote": 0, "first_error": 0}, {"vote": 1, "first_error": 1}]
    assert stage.kept_for_retry(tie) == tie
    assert stage.kept_for_retry([{"vote": 0, "first_error": None}, {"vote": 1, "first_error": None}]) == []


@pytest.mark.parametrize("other", [["--threshold", 0.5], ["--go-on"], ["--threshold", 0.3, "--go-on"]])
def test_labels_follow_the_threshold_from_stored_hits(tmp_path, problems, monkeypatch, other):
    """Changed afterwards, to and fro, the labels are those of a run that had the settings from the start."""
    monkeypatch.setenv("ANNOTATE_CALLS", str(tmp_path / "calls"))

    def labels(out, *more):
        arguments = ["--problems", problems, "--out", tmp_path / out, *MODELS, *PLUGGED, "--num-responses", 2]
        arguments += ["--num-completions", 2, *more]
        if not (tmp_path / out / "sample-0").exists():
            assert annotate("sample", *arguments) == 0
        before = len((tmp_path / "calls").read_text().splitlines())
        assert annotate("monte-carlo", *arguments) == 0
        calls = len((tmp_path / "calls").read_text().splitlines()) - before
        return (tmp_path / out / "monte_carlo.jsonl").read_text(), calls

    plain, _ = labels("a")
    fresh, _ = labels("b", *other)
    assert plain != fresh
    changed, calls = labels("a", *other)
    assert changed == fresh
    assert (calls == 0) == ("--go-on" not in other)  # a higher threshold stops earlier: nothing new is asked
    assert labels("b")[0] == plain and labels("a")[0] == plain
    assert labels("a", *other) == (fresh, 0)


def test_a_folder_of_an_earlier_version_goes_on(tmp_path, problems):
    arguments = ["--problems", problems, "--out", tmp_path / "out", *MODELS, *PLUGGED, "--num-responses", 1]
    assert annotate("all", *arguments) == 0
    path = tmp_path / "out" / "monte_carlo" / "manifest.json"
    manifest = json.loads(path.read_text())
    assert set(manifest["settings"]["monte_carlo"]) == {"num_completions", "separator", "seed"}
    manifest["settings"]["monte_carlo"] |= {"threshold": 0.0, "stop_at_first_miss": True}
    path.write_text(json.dumps(manifest | {"hash": "of the settings as they were"}))
    assert annotate("monte-carlo", *arguments, "--threshold", 0.2) == 0
    assert annotate("monte-carlo", *arguments, "--num-completions", 3) == 2


def test_a_dead_endpoint_is_found_before_the_first_call(tmp_path, problems, capsys):
    """The judge's turn would come last, and an outage is waited out for an hour."""
    arguments = ["--problems", problems, "--out", tmp_path / "out", "--model", "m", "--template", "plain", *PLUGGED[2:]]
    config = {"policies": [MODEL], "judge": {"model": "big", "endpoints": ["http://127.0.0.1:9/v1"]}}
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(config))
    started = time.monotonic()
    assert annotate("all", "--config", tmp_path / "x.yaml", *arguments, *PLUGGED[:2]) == 2
    assert "judge: no endpoint of 'big' can be reached: http://127.0.0.1:9/v1 (ConnectError" in capsys.readouterr().err
    assert time.monotonic() - started < 20 and not (tmp_path / "out" / "sample-0").exists()


def test_what_a_generator_gives_is_checked():
    for answers, message in [
        (["a", "b"], "gave 'a' for one prompt"),
        ([["a", "b"]], "gave 1 lists for 2 prompts"),
        ([["a"], ["a", "b"]], "expected a list of 1 texts"),
        (None, "gave a NoneType for 2 prompts"),
    ]:
        with pytest.raises(ValueError, match=message):
            check_answers(FickleJudge(None, 1), answers, 2, 1)


class Interrupted:
    def __init__(self, config, concurrency):
        self.calls = 0

    def generate(self, prompts, n, *, seed=None, stop=None):
        self.calls += 1
        if self.calls > 2:
            raise KeyboardInterrupt
        return [["so \\boxed{7}"] * n for _ in prompts]


def test_ctrl_c_keeps_what_is_written(tmp_path, problems, capsys):
    arguments = ["--problems", problems, "--out", tmp_path / "out", "--model", "m", "--template", "plain"]
    arguments += ["--concurrency", 2]
    with pytest.raises(SystemExit, match="130"):
        annotate("sample", *arguments, "--backend", "test_annotate_command.Interrupted")
    assert "the same command continues it" in capsys.readouterr().err
    records = tmp_path / "out" / "sample-0" / "00000.jsonl"
    assert len(records.read_text().splitlines()) == 4
    assert annotate("sample", *arguments, *PLUGGED) == 0
    assert len(records.read_text().splitlines()) == 6


def test_publishing(tmp_path, monkeypatch):
    import datasets

    pushed = {}
    monkeypatch.setattr(datasets.Dataset, "push_to_hub", lambda self, name: pushed.update({name: len(self)}))
    path = tmp_path / "solutions.jsonl"
    path.write_text(json.dumps({"problem": "p", "steps": ["step 1", "so \\boxed{7}"], "answer": "7"}))
    arguments = ["--solutions", path, "--out", tmp_path / "out", *MODELS, *PLUGGED, "--push-to-hub", "me/labels"]
    assert annotate("monte-carlo", *arguments) == 0
    assert pushed == {"me/labels": 1}


def test_templates(tmp_path):
    assert GeneratorConfig("m", template="plain").prompt_template()("x {problem}") == "x {problem}\n\n"
    chatml = GeneratorConfig("m", template="chatml").prompt_template()("2+2?")
    assert chatml.endswith("<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n") and "boxed{}" in chatml
    with pytest.raises(ValueError, match=r"a text with \{problem\} in it"):
        GeneratorConfig("m", template="Question:").prompt_template()
    assert write_rows(tmp_path / "none.jsonl", []) == 0
