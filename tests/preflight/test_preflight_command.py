"""``rlhf-prm preflight`` from end to end on tiny models, and its checks before anything long."""

import json
import re

import pytest
from markupsafe import escape

from rlhf_prm.cli import main
from rlhf_prm.evaluation.samples import load_samples, scored
from rlhf_prm.preflight import sources
from rlhf_prm.preflight.measures import preflight_measures
from rlhf_prm.preflight.page import preflight_page, preflight_text
from rlhf_prm.preflight.run import PreflightSettings, preflight
from rlhf_prm.preflight.wording import SECTIONS, WORDINGS, written
from rlhf_prm.prm import load_prm
from tests.evaluation.fakes import BoxVerifier, RuleScorer

VERIFIER = ("--verifier", "tests.evaluation.fakes.BoxVerifier")


def write(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def run(*arguments) -> int:
    return main(["preflight", *map(str, arguments)])


def strict_json(path) -> dict:
    """Fails on NaN, which is no JSON."""
    return json.loads(path.read_text(), parse_constant=lambda text: pytest.fail(f"{text} in {path}"))


def mixed_rows(problems=6):
    texts = ["good 1\n\n\\boxed{1}", "bad 2\n\n\\boxed{2}", "good 3\n\nbad 4\n\n\\boxed{1}", "bad"]
    rows = [{"problem": f"step {k}", "completions": texts, "solution": "1"} for k in range(problems)]
    return [row | {"first_errors": [-1, 0, 1, None]} for row in rows]


@pytest.fixture(scope="module")
def from_policy(policy_folder, prm_folder, tmp_path_factory):
    """A run on a tiny random policy; some gold answers are missing or cannot be read."""
    folder = tmp_path_factory.mktemp("policy-run")
    golds = ["1", "2", "3", "?", None, "4"]
    dataset = write(folder / "data.jsonl", [{"prompt": f"step {k}", "solution": g} for k, g in enumerate(golds)])
    page = folder / "out" / "page.html"
    arguments = ("--model", policy_folder, "--prm", prm_folder, "--dataset", dataset, "--template", "plain")
    sizes = ("--max-tokens", 12, "--problems", 9, "--n", 3, "--probe-problems", 2)
    assert run(*arguments, *sizes, *VERIFIER, "--output", page) == 0
    return page


def test_from_a_policy_and_a_dataset(from_policy):
    found = strict_json(from_policy.with_suffix(".json"))
    measures = found["measures"]
    assert measures["problems"] == 4 and measures["rollouts"] == 12  # without the two that have no gold
    assert measures["seconds_generating"] > 0 and measures["seconds_scoring"] > 0
    assert {line["name"] for line in found["probes"]} >= {"probe: filler", "re-splitting flips the order"}
    assert found["verdict"]["kind"] in ("pay", "not to matter", "harm", "cannot tell")
    assert from_policy.read_text().startswith("<!doctype html>")


def test_kept_rollouts_give_the_same_measures_again(from_policy, prm_folder, tmp_path, capsys):
    kept, page = from_policy.with_suffix(".samples.jsonl"), tmp_path / "again.html"
    assert run("--samples", kept, "--prm", prm_folder, "--probe-problems", 2, *VERIFIER, "--output", page) == 0
    first, again = (strict_json(path.with_suffix(".json"))["measures"] for path in (from_policy, page))
    timed = {"seconds_generating", "seconds_scoring", "scoring_over_generating"}
    assert {k: v for k, v in again.items() if k not in timed} == pytest.approx(
        {k: v for k, v in first.items() if k not in timed}
    )
    assert again["seconds_generating"] is None and again["scoring_over_generating"] is None


def test_from_a_file_of_samples(prm_folder, tmp_path, capsys):
    path, page, data = write(tmp_path / "samples.jsonl", mixed_rows()), tmp_path / "p.html", tmp_path / "d.json"
    arguments = ("--samples", path, "--prm", prm_folder, *VERIFIER, "--output", page, "--json", data)
    assert run(*arguments, "--probe-problems", 0, "--problems", 4) == 0
    printed, found = capsys.readouterr().out, strict_json(data)
    assert found["headline"] in printed and "AUROC of the lowest score" in printed
    assert found["measures"]["problems"] == 4 and found["probes"] == []
    samples = scored(load_samples(path, BoxVerifier()), load_prm(prm_folder))
    expected = preflight_measures(samples[:4])  # all problems have the same rollouts up to their number
    assert found["measures"]["mixed_share"] == expected["mixed_share"] == 1.0
    assert found["measures"]["labelled_rollouts"] == 12 and found["measures"]["flawed_right"] == 0.5


def test_the_toy_world_is_labelled_exactly(tmp_path, capsys):
    tiny = {
        "seed": 3, "sft_updates": 4, "sft_batch": 8, "train_problems": 4, "eval_problems": 8, "labelled_solutions": 12,
        "label_source": "gold", "prm_updates": 2, "prm_batch": 4,
    }  # fmt: skip
    page = tmp_path / "toy.html"
    arguments = ("--toyworld", json.dumps(tiny), "--stage-cache", tmp_path / "cache", "--problems", 6, "--n", 2)
    assert run(*arguments, "--probe-problems", 2, "--output", page) == 0
    measures = strict_json(page.with_suffix(".json"))["measures"]
    assert measures["labelled_rollouts"] == measures["rollouts"] == 12
    # The oracle scores what the labels say, so that its first errors are never wrong; no PRM is built for it.
    fresh = ("--toyworld", json.dumps(tiny), "--stage-cache", tmp_path / "fresh", *arguments[4:])
    assert run(*fresh, "--probe-problems", 2, "--prm", "oracle", "--output", page) == 0
    found = strict_json(page.with_suffix(".json"))
    assert found["prm"] == "oracle (exact labels)" and found["measures"]["error_accuracy"] == 1.0
    assert not list((tmp_path / "fresh").glob("prm-*")) and list((tmp_path / "cache").glob("prm-*"))
    assert run("--toyworld", '{"sed": 1}', "--output", page) == 2
    assert "--toyworld: " in capsys.readouterr().err


@pytest.fixture
def nothing_long(monkeypatch):
    """Fails when samples are drawn or a PRM's weights are loaded."""
    for name in ("from_policy", "from_toy_world"):
        monkeypatch.setattr(sources, name, lambda *_, **__: pytest.fail("drew samples before the checks"))
    monkeypatch.setattr("rlhf_prm.evaluation.arguments.scorer_from", lambda *_, **__: pytest.fail("loaded the PRM"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no source of rollouts"),
        (("--samples", "x.jsonl", "--toyworld", "{}"), "got --samples and --toyworld"),
        (("--model", "POLICY", "--prm", "PRM"), "--model and --dataset go together"),
        (("--samples", "x.jsonl", "--prm", "PRM", "--dataset", "DATA"), "--model and --dataset go together"),
        (("--samples", "x.jsonl"), "--prm is needed"),
        (
            ("--samples", "x.jsonl", "--prm", "oracle"),
            "--prm oracle knows the labels of the toy world and of word problems only",
        ),
        (("--samples", "x.jsonl", "--prm", "PRM"), "no file at x.jsonl"),
        (("--samples", "ONE", "--prm", "PRM"), "one completion per problem"),
        (("--samples", "x.jsonl", "--prm", "nowhere/at-all"), "--prm nowhere/at-all cannot be loaded"),
        (("--model", "nowhere", "--prm", "PRM", "--dataset", "DATA"), "--model nowhere cannot be loaded"),
        (("--model", "POLICY", "--prm", "PRM", "--dataset", "DATA", "--n", "1"), "--n 1"),
        (("--model", "POLICY", "--prm", "PRM", "--dataset", "none.jsonl"), "no file at none.jsonl"),
        (("--model", "POLICY", "--prm", "PRM", "--dataset", "GOLDLESS"), "none of its 2 rows has a gold answer"),
        (("--model", "POLICY", "--prm", "PRM", "--dataset", "DATA", "--problem-column", "q"), "no column"),
        (("--samples", "ONE", "--prm", "PRM", "--output", "FOLDER"), "is a folder"),
        (("--samples", "ONE", "--prm", "PRM", "--output", "FOLDER/a.json"), "need separate files"),
        (("--toyworld", "{"), "expected a mapping, on a command line a JSON object"),
    ],
)
def test_cheap_checks_come_first(arguments, message, nothing_long, policy_folder, prm_folder, tmp_path, capsys):
    folder = tmp_path / "folder"
    folder.mkdir()
    places = {
        "POLICY": policy_folder,
        "PRM": prm_folder,
        "FOLDER": folder,
        "DATA": write(tmp_path / "data.jsonl", [{"prompt": "step", "solution": "1"}]),
        "GOLDLESS": write(tmp_path / "goldless.jsonl", [{"prompt": "step", "solution": ""}] * 2),
        "ONE": write(tmp_path / "one.jsonl", [{"problem": "step", "completions": ["\\boxed{1}"], "solution": "1"}]),
    }
    given = [re.sub(r"^[A-Z]+", lambda match: str(places[match[0]]), text) for text in arguments]
    output = () if "--output" in given else ("--output", tmp_path / "page.html")
    plain = ("--template", "plain")
    assert run(*given, *VERIFIER, *plain, *output) == 2
    printed = capsys.readouterr().err
    last = printed.splitlines()[-1]  # after the bars of whoever read the dataset
    assert message in last and "rlhf-prm preflight: error:" in last and "Traceback" not in printed


def test_gold_that_the_verifier_cannot_read_is_found_before_sampling():
    prompts = sources.Prompts(["a", "b"], ["?", "1"], ["a", "b"])
    assert sources.with_readable_gold(prompts, BoxVerifier()).problems == ["b"]
    with pytest.raises(ValueError, match="none of the 1 gold answers"):
        sources.with_readable_gold(prompts.select([0]), BoxVerifier())


def test_samples_do_not_depend_on_how_many_prompts_are_asked_at_once():
    class Echo:
        def generate(self, prompts, n, *, seed=None, stop=None):
            return [[f"{prompt} {one} {j}" for j in range(n)] for prompt, one in zip(prompts, seed, strict=True)]

    prompts = list("abcde")
    assert sources.generated(Echo(), prompts, 2, 2, 7) == sources.generated(Echo(), prompts, 2, 5, 7)


def hostile(attack=""):
    rule = RuleScorer(lambda problem, before, step: 0.2 if "bad" in step else 0.9)
    steps = [[f"good {attack}", "good"], ["bad", "bad"], ["good", "good"], ["good", "bad"]]
    sample = sources.SampledProblem(f"p {attack}", steps, [True, False, True, False], ["1", "2", "1", "2"])
    return preflight(rule, [sample] * 3, PreflightSettings(), policy=f"policy {attack}", prm=f"prm {attack}")


def test_page_is_self_contained_escapes_and_shows_every_line():
    result = hostile('<script>alert("x")</script>')
    page = preflight_page(result)
    assert "<script" not in page and "&lt;script&gt;" in page
    assert not re.search(r"(?:src|href)\s*=|url\(|@import", page)
    assert 'lang="en"' in page and "prefers-color-scheme: dark" in page and page.count('scope="col"') >= 5
    for line in WORDINGS.values():
        assert f'<th scope="row">{escape(line.title)}</th>' in page
    for title in SECTIONS:
        assert title in page
    for reason in result.verdict.reasons:
        assert str(escape(reason)) in page
    assert written(result.measures, "rho") in page and result.rule.origin in page


def test_text_has_the_verdict_first_and_every_measure():
    result = hostile()
    text = preflight_text(result)
    assert text.startswith(result.verdict.headline) and f"Method to take: {result.verdict.method}" in text
    for line in WORDINGS.values():
        assert line.title in text
    assert "probe: chit-chat" in text


def test_every_measure_with_a_line_is_measured():
    measures = hostile().measures
    for name in WORDINGS:
        assert name in measures, name


def test_probes_that_pay_are_counted_and_cautioned_against():
    result = hostile()
    # chit-chat scores .9 under mean, min, last and product where the rollouts have .9 or less
    assert result.measures["probes_that_pay"] >= 1 and result.measures["probe_chit-chat"] > 0
    assert any("probes of hacking pay" in reason for reason in result.verdict.reasons)
    quiet = preflight(
        RuleScorer(lambda *_: 0.5), [sources.SampledProblem("p", [["a"], ["b"]], [True, False], ["1", "2"])]
    )
    assert quiet.measures["probes_that_pay"] == 0.0 and "no better than chance" in quiet.warning
    assert result.warning is None
