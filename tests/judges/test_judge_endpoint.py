"""The judge behind a server: overlap with other work, one that takes 16 at a time, one that fails, one that dies."""

import math
import time
from types import SimpleNamespace

import pytest
import torch

from reward.verifier import Verdict
from rlhf_prm.generation.endpoint import EndpointError
from rlhf_prm.judges.load import load_judge
from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.rl.rollout_scoring import RolloutScoring
from rlhf_prm.runs.checkpoints import checkpoint_to_resume
from rlhf_prm.runs.train import checkpoint_when_server_is_lost
from rlhf_prm.step_data import read_rows
from rlhf_prm.steps import StepSplitter
from tests.annotate.annotate_server import FAULTS
from tests.judges.scripted_judge import JudgeServer, first_bad, paper
from tests.tiny import DigitVerifier, tiny_config, tiny_dataset, tiny_policy, tiny_tokenizer

QUICK = {"options": {"first_wait": 0.01, "longest_wait": 0.05}, "timeout": 2.0, "deadline": 60.0}


def rollouts(count):
    """Solutions of three steps; in every other one the second is bad."""
    return [[f"a {i}", "bad" if i % 2 else "good", "c"] for i in range(count)]


def judge_at(server, **keywords):
    return load_judge("m", endpoint=server.url, **QUICK | keywords)


def test_64_rollouts_and_4_votes_on_a_server_that_answers_16_at_a_time_and_fails_often():
    """Every one is scored, as by a server that never fails; and no more are under way than asked for."""
    steps = rollouts(64)
    with JudgeServer(FAULTS, probability=0.3, seed=2, latency=0.2, at_once=16) as server:
        judge = judge_at(server, votes=4, concurrency=48)
        scores = judge.score(["p"] * 64, steps)
        assert 8 < server.most_busy <= 16 and server.most_in_flight <= 48
    assert scores[::2] == [[1.0] * 3] * 32
    assert all(row[:2] == [1.0, 0.0] and math.isnan(row[2]) for row in scores[1::2])
    assert judge.stats.judge_calls == 256 and judge.stats.judge_retries > 20
    assert judge.stats.judge_prompt_tokens == 2560 and judge.stats.judge_completion_tokens == 5120
    assert len(set(server.seeds)) == 256


@pytest.mark.parametrize(("status", "asked_again"), [(503, True), (429, True), (400, False)])
def test_a_question_that_fails_for_good_is_given_up_and_counted(status, asked_again):
    with JudgeServer(refuse="hopeless") as server:
        server.refusal = status
        judge = judge_at(server, deadline=0.6)
        # Others one after the other, so that the host is seen to answer meanwhile.
        steps = [["hopeless"], *([f"a {i}"] for i in range(20))]
        server.slow = 0.05
        judge.generator.concurrency = 2
        scores = judge.score(["p"] * 21, steps)
    assert math.isnan(scores[0][0]) and scores[1:] == [[1.0]] * 20
    assert (judge.stats.judge_failed, judge.stats.judge_unscored_steps) == (1, 1)
    assert (judge.stats.judge_retries > 0) == asked_again


def test_garbage_is_an_answer_that_cannot_be_read():
    with JudgeServer(
        answer_to=lambda question, seed: "<html>bad gateway</html>" if "x" in question[-60:] else ""
    ) as one:
        judge = judge_at(one, attempts=3)
        assert math.isnan(judge.score(["p"], [["a"]])[0][0])
    assert (judge.stats.judge_calls, judge.stats.judge_unreadable) == (3, 1)


def test_seconds_end_an_update_that_is_under_way():
    with JudgeServer(latency=0.5, at_once=1) as server:
        judge = judge_at(server, budget_seconds=2.0)
        begun = time.monotonic()
        scores = judge.score(["p"] * 20, rollouts(20))
        assert time.monotonic() - begun < 6
    scored = sum(not math.isnan(row[0]) for row in scores)
    assert 1 <= scored <= 4 and judge.stats.judge_over_budget == 20 - scored


class SlowVerifier(DigitVerifier):
    """Takes ``seconds``."""

    def __init__(self, seconds):
        self.seconds = seconds

    def verify(self, completions, solutions) -> list[Verdict]:
        time.sleep(self.seconds)
        return super().verify(completions, solutions)


@pytest.mark.parametrize("rest", [0.3, 2.0])
def test_the_judge_is_waited_for_only_as_long_as_it_outlasts_the_rest(rest):
    """At most max(0, judge − rest) and 5 % of the longer one."""
    tokenizer = tiny_tokenizer()
    with JudgeServer(latency=1.0) as server:
        judge = judge_at(server, votes=4)
        scoring = RolloutScoring(StepSplitter("\n\n"), tokenizer, judge, SlowVerifier(rest))
        ids = [tokenizer(f" a\n\n {i % 10}\n\n 7", add_special_tokens=False)["input_ids"] for i in range(8)]
        scoring(["p"] * 8, ["p"] * 8, ["7"] * 8, ids)
    judging = judge.stats.judge_seconds
    assert judging >= 1.0
    assert scoring.seconds["prm"] <= max(0.0, judging - rest) + 0.05 * max(judging, rest)
    assert scoring.seconds["verifier"] >= rest - 0.01


class Watched:
    """A scorer that notes when it is asked, and when it is waited for."""

    def __init__(self):
        self.events = []

    def submit(self, problems, steps):
        self.events.append("submitted")

        def result():
            self.events.append("waited for")
            return [[0.5] * len(row) for row in steps]

        return SimpleNamespace(result=result)

    def score(self, problems, steps):
        raise AssertionError("asked in the foreground")


def trainer_with(scorer, folder, updates=2, verifier=None, **settings):
    config = tiny_config(folder, max_steps=updates, **settings)
    return ProcessGRPOTrainer(
        model=tiny_policy(),
        args=config,
        train_dataset=tiny_dataset(16),
        processing_class=tiny_tokenizer(),
        step_scorer=scorer,
        verifier=verifier or DigitVerifier(),
    )


def test_log_probabilities_are_computed_while_the_judge_works(tmp_path):
    """Submitted as soon as there are completions, waited for last: behind TRL's own forward passes and the verifier."""
    scorer = Watched()

    class Noting(DigitVerifier):
        def verify(self, completions, solutions):
            scorer.events.append("verified")
            return super().verify(completions, solutions)

    trainer = trainer_with(scorer, tmp_path, 1, Noting(), num_iterations=2)
    compute = trainer._get_per_token_logps_and_entropies

    def noted(*arguments, **keywords):
        scorer.events.append("log-probabilities")
        return compute(*arguments, **keywords)

    trainer._get_per_token_logps_and_entropies = noted
    trainer.train()
    assert scorer.events[:4] == ["submitted", "log-probabilities", "verified", "waited for"]
    assert trainer.last_rollouts.rollouts.scored.all()


def in_tiny_words(question, seed):
    """A verdict by the question's text: the first step is wrong in every third."""
    return paper(0 if sum(map(ord, question)) % 3 == 0 else -1, question.count("</paragraph_"))


def trained(folder, server, updates, resume=None, **keywords):
    judge = judge_at(server, deadline=1.0, **keywords)
    trainer = trainer_with(judge, folder, updates, step_pattern=" ", resume_from_checkpoint=resume)
    with checkpoint_when_server_is_lost(trainer):
        trainer.train(resume_from_checkpoint=checkpoint_to_resume(trainer.args))
    return trainer, judge


class Mortal(JudgeServer):
    """Answers the first ``life`` questions and is gone: the port is closed."""

    life, gone = 0, False

    def answer(self, handler, body, fault):
        with self.lock:
            number = self.answered = getattr(self, "answered", 0) + 1
        if number <= self.life:
            return super().answer(handler, body, fault)
        if not self.gone:
            self.gone = True
            self.http.shutdown()
            self.http.server_close()
        return handler.connection.close()

    def __exit__(self, *exception):
        if not self.gone:
            super().__exit__(*exception)


def test_a_killed_judge_ends_the_run_which_goes_on_later_and_pays_nothing_twice(tmp_path):
    with JudgeServer(answer_to=in_tiny_words) as server:
        whole, judge = trained(tmp_path / "whole", server, 4)
        calls = judge.stats.judge_calls
        logged = [row for row in whole.state.log_history if "prm/judge_calls" in row]
        assert len(logged) == 4 and sum(row["prm/judge_calls"] for row in logged) == calls > 8
        names = ("tokens", "cost", "cache_hits", "unreadable_frac", "over_budget", "failed")
        assert {f"prm/judge_{name}" for name in names} <= set(logged[0])
        assert logged[0]["prm/judge_tokens"] == 30 * logged[0]["prm/judge_calls"]
    first_updates = int(sum(row["prm/judge_calls"] for row in logged[:2]))
    folder = tmp_path / "run"
    with Mortal(answer_to=in_tiny_words) as server:
        server.life = first_updates + 3
        with pytest.raises(SystemExit, match=r"(?s)no endpoint of 'm' can be reached.*update 2 is saved; resume with"):
            trained(folder, server, 4)
    kept = sum(1 for _ in read_rows(folder / "judged.jsonl"))
    assert kept == first_updates + 3
    with JudgeServer(answer_to=in_tiny_words) as server:
        resumed, judge = trained(folder, server, 4, resume="true")
        assert len(server.bodies) == judge.stats.judge_calls == calls - kept
    assert resumed.state.global_step == 4
    for name, weights in whole.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], weights, msg=name)


def test_a_judge_that_was_never_there_is_said_before_anything_is_loaded():
    with pytest.raises(EndpointError, match="no endpoint of 'm' can be reached"):
        load_judge("m", endpoint="http://127.0.0.1:9/v1")


def test_what_the_server_is_asked(tmp_path):
    with JudgeServer(answer_to=lambda question, seed: first_bad(question)) as server:
        judge = judge_at(server, temperature=0.3, max_tokens=99, extra_body={"top_k": 5})
        judge.score(["p"], [["a"]])
    ((path, body),) = server.bodies
    assert path == "/v1/chat/completions" and body["model"] == "m"
    assert (body["temperature"], body["max_tokens"], body["top_k"], body["n"]) == (0.3, 99, 5, 1)
