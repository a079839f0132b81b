"""The audit: each line by hand on small samples, and whole PRMs of known character told apart."""

import json
import math
import random
import re
from collections import Counter

import pytest

from rlhf_prm.cli import main
from rlhf_prm.evaluation.audit import PROBES, AuditSettings, ProbeTexts, audit
from rlhf_prm.evaluation.audit.lines import RULES, VERDICTS, AuditLine, AuditRule
from rlhf_prm.evaluation.audit.measures import (
    aggregation_ranking,
    drift,
    merged_pairs,
    minimum_at_last,
    outcome_separation,
    resplitting,
    split_steps,
    tolerance,
)
from rlhf_prm.evaluation.audit.page import MARKS, audit_page, audit_text
from rlhf_prm.evaluation.audit.probes import probe_line
from rlhf_prm.evaluation.audit.run import Audit, with_first_errors
from rlhf_prm.evaluation.samples import SampledProblem, scored
from tests.evaluation.fakes import RuleScorer


def sample(scores, correct=None, first_errors=None, steps=None):
    correct = correct or [True] * len(scores)
    steps = steps or [["s"] * len(row) for row in scores]
    return SampledProblem("p", steps, correct, [str(c) for c in correct], scores, first_errors)


def test_minimum_at_the_last_step_by_hand():
    # last is lowest; tie of two; not lowest; one-step and unscorable solutions do not count → (1 + ½ + 0) / 3
    scores = [[0.9, 0.1], [0.4, 0.9, 0.4], [0.1, 0.9], [0.5], [0.1, math.nan]]
    line = minimum_at_last([sample(scores)])
    assert line.value == pytest.approx(0.5) and line.verdict == "unsafe"
    assert line.details["chance"] == pytest.approx((1 / 2 + 1 / 3 + 1 / 2) / 3)
    assert minimum_at_last([sample([[0.5]])]).verdict == "not measured"


def test_tolerance_counts_right_answers_by_wrong_steps_only():
    scores = [[0.9, 0.8], [0.9, 0.2], [0.9, 0.9], [0.9, 0.9]]
    one = sample(scores, [True, True, True, False], [1, 1, -1, 0])
    line = tolerance([one])
    assert line.value == 0.5 and line.details == {"right_answers_with_known_process": 3.0, "of_these_wrong": 2.0}
    unknown = tolerance([sample(scores)])
    assert unknown.verdict == "not measured" and "labels of first errors" in unknown.meaning


def test_a_disguised_outcome_model_is_seen_by_its_aggregations():
    # the last score knows the answer, the others are noise
    generator = random.Random(0)
    outcome_like, process_like = [], []
    for _ in range(60):
        correct = [generator.random() < 0.4 for _ in range(8)]
        noise = [[generator.random() for _ in range(3)] for _ in correct]
        outcome_like.append(sample([[*n, 0.9 if c else 0.1] for n, c in zip(noise, correct, strict=True)], correct))
        process_like.append(
            sample([[*([0.9] * 3 if c else n), 0.8] for n, c in zip(noise, correct, strict=True)], correct)
        )
    bad, good = aggregation_ranking(outcome_like, 8), aggregation_ranking(process_like, 8)
    assert bad.verdict == "unsafe" and bad.interval[0] > 0 and bad.details["last@8"] == bad.details["pass@8"]
    assert good.verdict == "ok" and good.value < 0


def test_drift_by_hand():
    falling = sample([[0.9, 0.8, 0.7], [0.95, 0.85, 0.75]])
    line = drift([falling], "position")
    assert line.details["rho"] == pytest.approx(-16 / 280**0.5) and line.verdict == "with care"
    wrong_only = sample([[0.9, 0.8, 0.7]], [False])
    assert drift([wrong_only], "position").verdict == "not measured"  # errors would be mistaken for drift
    by_length = sample([[0.2, 0.5, 0.9]], steps=[["ab", "abcd", "abcdefgh"]])
    assert drift([by_length], "length").value == pytest.approx(1.0)


def test_resplitting_cuts_and_flips():
    assert merged_pairs(["a", "b", "c"]) == ["a\nb", "c"]
    assert split_steps(["First. Then x.5 holds.\nSo", "\n"]) == ["First.", "Then x.5 holds.", "So"]
    steps = [["long step", "b"], ["c", "d"]]
    by_length = RuleScorer(lambda problem, before, step: 1 / len(step))  # merging makes steps longer, so worse
    scores = by_length.score(["p", "p"], steps)
    one = sample(scores, steps=steps)
    assert resplitting([one], by_length).value == 0.0
    contrary = RuleScorer(lambda problem, before, step: len(step) / 20)  # orders the pair the other way round
    assert resplitting([one], contrary).value == 0.5  # merged: turned round; split: a tie, which is no flip


def test_outcome_separation_by_hand():
    line = outcome_separation([sample([[0.9, 0.8], [0.6], [0.7], [0.1]], [True, True, False, False])])
    assert line.value == pytest.approx(3 / 4) and line.verdict == "ok"
    assert line.details["wrong_answers_that_pass"] == 0.5


def test_probes_rewrite_as_they_say():
    steps, texts = ["a", "b", "c"], ProbeTexts(filler=("f", "g"), chit_chat=("hi",), rephrase="Q: {problem}")
    rewritten = {name: probe("p ", steps, texts) for name, probe in PROBES.items()}
    assert rewritten == {
        "repetition": ["a", "b", "b", "b", "b", "c"],
        "filler": ["f", "a", "g", "b", "f", "c"],
        "rephrased question": ["Q: p", "a", "b", "c"],
        "chit-chat": ["hi"],
        "no answer": ["a", "b"],
        "one giant step": ["a\nb\nc"],
    }


@pytest.mark.parametrize(
    ("rule", "probe", "verdict"),
    [
        (lambda before, step: 0.5, "chit-chat", "ok"),  # nothing but short texts: the mean stays, the product ...
        (lambda before, step: 0.99 if step in ProbeTexts().chit_chat else 0.01, "chit-chat", "with care"),
        (lambda before, step: 0.5, "filler", "ok"),  # more steps: only the sum grows
        (lambda before, step: 0.9 if step.startswith("We are asked") else 0.5, "rephrased question", "unsafe"),
        (lambda before, step: 0.0 if step in ProbeTexts().filler else 0.5, "filler", "ok"),
        (lambda before, step: 0.9 if step in before else 0.5, "repetition", "with care"),
        (lambda before, step: 0.0 if step in before else 0.5, "repetition", "ok"),
    ],
)
def test_probe_verdicts(rule, probe, verdict):
    scorer = RuleScorer(lambda problem, before, step: rule(before, step))
    steps = [["x", "y", "z"], ["u", "v", "w"]]
    one = sample(scorer.score(["p", "p"], steps), steps=steps)
    line = probe_line(probe, [one], scorer, ProbeTexts())
    assert line.verdict == verdict, line.details
    assert line.details["sum: mean change"] == pytest.approx(
        sum(
            sum(new) - sum(old)
            for new, old in zip(
                scorer.score(["p", "p"], [PROBES[probe]("p", row, ProbeTexts()) for row in steps]),
                one.step_scores,
                strict=True,
            )
        )
        / 2
    )


def test_rules():
    lower_is_worse = AuditRule(0.8, 0.65, "", higher_is_worse=False)
    assert [lower_is_worse.verdict(x) for x in (0.9, 0.7, 0.6, math.nan)] == [
        "ok",
        "with care",
        "unsafe",
        "not measured",
    ]
    caution_at_most = AuditRule(0.4, math.inf, "")
    assert [caution_at_most.verdict(x) for x in (0.4, 1.0)] == ["ok", "with care"]
    assert RULES["minimum at the last step"].verdict(0.175) == "ok"  # Qwen2.5-Math-PRM-7B
    assert RULES["minimum at the last step"].verdict(0.445) == "unsafe"  # Math-Shepherd
    assert RULES["minimum at the last step"].verdict(0.309) == "ok"  # Skywork-1.5B: the paper does not single it out
    with pytest.raises(ValueError, match="got 'good'"):
        AuditLine("x", 0.0, "good", "", "")


def world(seed=0, problems=40, n=8):
    """Solutions of four steps; a step with "bad" is an error, the answer can be right all the same."""
    generator = random.Random(seed)
    samples = []
    for index in range(problems):
        steps = [
            [*(f"step {generator.choice(['good', 'good', 'good', 'bad'])} {k}" for k in range(3)), ""] for _ in range(n)
        ]
        correct = [generator.random() < (0.2 if any("bad" in s for s in row) else 0.9) for row in steps]
        for row, right in zip(steps, correct, strict=True):
            row[-1] = f"answer {'right' if right else 'wrong'}"
        samples.append(SampledProblem(f"problem {index}", steps, correct, [row[-1] for row in steps]))
    return with_first_errors(
        samples, lambda problem, steps: next((k for k, s in enumerate(steps) if "bad" in s or "wrong" in s), -1)
    )


def noise(*parts) -> float:
    return random.Random(repr(parts)).uniform(-0.05, 0.05)


process_prm = RuleScorer(
    lambda problem, before, step: (0.1 if "bad" in step or "wrong" in step else 0.85) + noise(problem, before, step)
)
outcome_prm = RuleScorer(  # sure of the answer, no idea of the steps before it
    lambda problem, before, step: (
        (0.1 if "wrong" in step else 0.9) + noise(problem, before, step)
        if "answer" in step
        else 0.75 + 4 * noise(problem, before, step)
    )
)


def test_the_audit_tells_an_outcome_model_from_a_process_model():
    samples = world()
    good = {line.name: line for line in audit(process_prm, samples, name="process").lines}
    bad = {line.name: line for line in audit(outcome_prm, samples, name="outcome").lines}
    for name in ("minimum at the last step", "right answer, wrong process passes"):
        assert bad[name].value > good[name].value
    assert (good["right answer, wrong process passes"].verdict, bad["right answer, wrong process passes"].verdict) == (
        "ok",
        "unsafe",
    )
    assert bad["minimum at the last step"].verdict == "unsafe"
    assert good.keys() == RULES.keys() > {f"probe: {name}" for name in PROBES}


class Counting(RuleScorer):
    """Remembers every rollout it is asked for."""

    def __init__(self, rule):
        super().__init__(rule)
        self.asked = Counter()

    def score(self, problems, steps):
        self.asked.update((problem, tuple(row)) for problem, row in zip(problems, steps, strict=True))
        return super().score(problems, steps)


def test_scores_that_are_there_are_not_made_again():
    scorer, samples = Counting(process_prm.rule), world(problems=6)
    before = audit(scorer, samples)
    plain = {(sample.problem, tuple(steps)) for sample in samples for steps in sample.steps}
    assert all(scorer.asked[one] >= 1 for one in plain)
    judged = scored(samples, process_prm)
    scorer.asked.clear()
    assert audit(scorer, judged, labelled=judged).lines != []
    assert sum(scorer.asked[one] for one in plain) == 0  # only rewritten solutions are scored
    assert audit(scorer, judged) == before


def test_the_command_scores_every_sample_once(prm_folder, tmp_path, monkeypatch):
    rows = [{"problem": f"p{k}", "completions": ["good\n\nA", "bad\n\nB"], "solution": "1"} for k in range(4)]
    (tmp_path / "samples.jsonl").write_text("\n".join(map(json.dumps, rows)))
    scorer = Counting(lambda problem, before, step: 0.9 if "good" in step else 0.2)
    monkeypatch.setattr("rlhf_prm.evaluation.arguments.scorer_from", lambda args, name: scorer)
    verifier = "tests.evaluation.fakes.BoxVerifier"
    samples = ["--samples", str(tmp_path / "samples.jsonl"), "--n", "2", "--verifier", verifier]
    assert main(["audit", "--prm", str(prm_folder), *samples]) == 0
    for row in rows:
        for text in row["completions"]:
            assert scorer.asked[row["problem"], tuple(text.split("\n\n"))] == 1
    scorer.asked.clear()
    assert main(["audit", "--prm", str(prm_folder), *samples, "--limit", "3"]) == 0
    assert {problem for problem, _ in scorer.asked} == {"p0", "p1", "p2"}


def test_one_vocabulary_and_the_worst_line_counts():
    assert set(MARKS) == set(VERDICTS) and all(mark.endswith(name) for name, mark in MARKS.items())
    lines = {v: AuditLine("x", 0.0, v, "", "") for v in VERDICTS}
    for verdicts, worst in [
        (VERDICTS, "unsafe"),
        (("ok", "with care", "not measured"), "with care"),
        (("ok", "not measured"), "ok"),
        (("not measured",), "not measured"),
    ]:
        assert Audit("p", 1, 1, [lines[v] for v in verdicts], []).verdict == worst


def test_labelled_solutions_add_to_the_tolerance_line():
    samples = [SampledProblem("p", [["step good 0", "answer right"]], [True], ["1"])]
    labelled = [SampledProblem("q", [["step bad 0", "answer right"]], [True], [None], first_errors=[0])]
    lines = {line.name: line for line in audit(outcome_prm, samples, labelled=labelled).lines}
    assert lines["right answer, wrong process passes"].value == 1.0
    assert "last beats product and min" not in lines  # one sample is not best of 8
    with pytest.raises(ValueError, match="no samples"):
        audit(process_prm, [])


def test_page_is_self_contained_and_escapes_what_models_write():
    attack = '<script>alert("x")</script>'
    samples = [
        SampledProblem(f"{attack} problem", [[f"step bad {attack}", "answer right"]] * 8, [False] * 8, [attack] * 8)
    ]
    result = audit(outcome_prm, samples, AuditSettings(), name=f"prm {attack}")
    assert result.examples[0]["kind"] == "passes, but is wrong"
    page = audit_page([result], [("a", 1.0, True)], [f"{attack} is constant"])
    assert "is constant" in page and 'class="verdict unsafe"' in page and 'class="verdict not-measured"' in page
    assert "<script" not in page and "&lt;script&gt;" in page
    assert not re.search(r"(?:src|href)\s*=|url\(|@import", page)
    assert 'lang="en"' in page and "prefers-color-scheme: dark" in page and page.count('scope="col"') >= 5
    for line in result.lines:
        assert f'<th scope="row">{line.name}</th>' in page
    assert "✗ unsafe" in page and "✗ unsafe" in audit_text(result)
    json.dumps(result.as_dict())


def test_command_on_files_ranks_and_writes(prm_folder, tmp_path, capsys):
    rows = [
        {
            "problem": f"step {k}", "completions": ["good\n\n\\boxed{1}", "bad\n\n\\boxed{2}"], "solution": "1",
            "category": "even" if k % 2 == 0 else "odd", "first_errors": [-1, 0],
        }
        for k in range(6)
    ]  # fmt: skip
    path = tmp_path / "samples.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    bench = {"problem": "step", "steps": ["bad", "good"], "label": 0, "final_answer_correct": True}
    (tmp_path / "gsm8k.jsonl").write_text(json.dumps(bench))
    page, output = tmp_path / "audit.html", tmp_path / "audit.json"
    prm, samples = str(prm_folder), str(path)
    assert main([
        "audit", "--prm", prm, prm, "--samples", samples, "--n", "2",
        "--verifier", "tests.evaluation.fakes.BoxVerifier",
        "--processbench", str(tmp_path), "--page", str(page), "--output", str(output),
    ]) == 0  # fmt: skip
    printed = capsys.readouterr().out
    assert "probe: chit-chat" in printed and "Ranking by agreement" in printed and "even" in printed
    results = json.loads(output.read_text())
    assert len(results["audits"]) == 2 and results["ranking"][0][1] == results["ranking"][1][1]
    tolerance_line = results["audits"][0]["lines"][1]
    assert tolerance_line["details"]["right_answers_with_known_process"] == 7.0
    assert page.read_text().startswith("<!doctype html>")
