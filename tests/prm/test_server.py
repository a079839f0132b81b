"""The served placement against a local server that drops, hangs, refuses, goes away and comes back."""

import math
import threading
import time
from email.utils import formatdate

import prm_checkpoints
import pytest
from pooling_server import PoolingServer, free_port, wait_until
from prm_rollouts import ragged
from transformers import AutoModelForTokenClassification

from rlhf_prm.prm import PRMServerError, load_prm
from rlhf_prm.prm.qwen2 import Qwen2ForProcessRewardModel


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return prm_checkpoints.qwen_prm(tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="module")
def model(folder):
    return Qwen2ForProcessRewardModel.from_pretrained(folder)


@pytest.fixture(scope="module")
def tag_id(folder):
    return load_prm(folder).texts.tag_id


@pytest.fixture
def served(folder):
    scorers = []

    def make(url, **told):
        scorers.append(load_prm(folder, placement="server", server_url=url, **{"server_deadline": 20.0} | told))
        return scorers[-1]

    yield make
    for scorer in scorers:
        scorer.close()


def expected(folder):
    return [pytest.approx(row, abs=1e-5) for row in load_prm(folder).score(*ragged())]


@pytest.mark.parametrize(
    "told",
    [
        {"device": "cpu"},
        {"dtype": "bfloat16"},
        {"max_batch_tokens": 8},
        {"share_prefix": True},
        {"attn_implementation": "sdpa"},
    ],
)
def test_what_has_no_effect_on_a_server_is_refused(folder, told):
    ((name, value),) = told.items()
    with pytest.raises(ValueError, match=f"{name}={value!r} has no effect: with placement 'server'"):
        load_prm(folder, placement="server", **told)


def test_scores_are_those_of_the_model_in_process(folder, model, tag_id, served):
    with PoolingServer(model, tag_id) as server:
        scorer = served(server.url)
        scorer.request_tokens = 200
        assert scorer.score(*ragged()) == expected(folder)
        assert len(server.requests) > 1 and sum(map(len, server.requests)) == 5  # the duplicate is not sent
        assert scorer.context == 512 and scorer.stats.rollouts == 6
        assert scorer.score([], []) == []


def test_submitted_rollouts_are_scored_beside_other_work(folder, model, tag_id, served):
    """Two batches, begun while the server answers neither; what fails is raised where the scores are waited for."""
    problems, steps = ragged()
    answers = threading.Event()

    def held(rows):
        assert answers.wait(20)
        return rows

    with PoolingServer(model, tag_id, tamper=held) as server:
        scorer = served(server.url)
        begun = [scorer.submit(problems[:2], steps[:2]), scorer.submit(problems[2:], steps[2:])]
        assert not any(one.done() for one in begun)
        answers.set()
        assert [row for one in begun for row in one.result(20)] == expected(folder)
        assert scorer.stats.rollouts == 6
    with PoolingServer(model, tag_id, faults=[400]) as refuses, pytest.raises(ValueError, match="400"):
        served(refuses.url).submit(problems, steps).result(20)


def test_token_rows_are_read_at_the_step_ends(tmp_path):
    folder = prm_checkpoints.token_classification(tmp_path)
    whole = load_prm(folder).score(*ragged())
    with PoolingServer(AutoModelForTokenClassification.from_pretrained(folder), None) as server:
        scorer = load_prm(folder, placement="server", server_url=server.url)
        assert scorer.score(*ragged()) == [pytest.approx(row, abs=1e-5) for row in whole]
        scorer.close()


@pytest.mark.parametrize("fault", ["drop", 503, 500, 429])
def test_a_failure_that_passes_costs_nothing(folder, model, tag_id, served, fault):
    with PoolingServer(model, tag_id, faults=[fault, fault]) as server:
        assert served(server.url).score(*ragged()) == expected(folder)
        assert server.faults == []


@pytest.mark.parametrize("after", ["1", lambda: formatdate(time.time() + 2, usegmt=True)])
def test_retry_after_is_waited_for(folder, model, tag_id, served, after):
    after = after if isinstance(after, str) else after()
    with PoolingServer(model, tag_id, faults=[429], retry_after=after) as server:
        begun = time.monotonic()
        assert served(server.url).score(*ragged()) == expected(folder)
        assert time.monotonic() - begun >= 0.9


def test_an_answer_that_never_comes_is_asked_for_again(folder, model, tag_id, served):
    with PoolingServer(model, tag_id, faults=["hang"]) as server:
        scorer = served(server.url)
        scorer._client.timeout = 0.5
        assert scorer.score(*ragged()) == expected(folder)


def test_killed_and_restarted_between_and_during_calls(folder, model, tag_id, served):
    with PoolingServer(model, tag_id) as server:
        scorer = served(server.url)
        assert scorer.score(*ragged()) == expected(folder)
    results = []
    call = threading.Thread(target=lambda: results.append(scorer.score(*ragged())))
    call.start()  # the server is away
    with PoolingServer(model, tag_id, port=server.port) as again:
        call.join(20)
        assert results == [expected(folder)] and sum(map(len, again.requests)) == 5


def test_down_for_good_says_how_to_start_it(folder, served):
    scorer = served(f"http://127.0.0.1:{free_port()}", server_deadline=1.0)
    begun = time.monotonic()
    with pytest.raises(PRMServerError, match="no answer for 1 s") as error:
        scorer.score(*ragged())
    assert time.monotonic() - begun < 5
    command = f'vllm serve {folder} --runner pooling --pooler-config \'{{"pooling_type": "STEP", "step_tag_id": '
    assert command in str(error.value) and str(scorer.texts.tag_id) in str(error.value)


def test_a_refusal_is_not_repeated(model, tag_id, served):
    with PoolingServer(model, tag_id, faults=[400]) as server:
        with pytest.raises(ValueError, match="status 400"):
            served(server.url).score(*ragged())
        wait_until(lambda: server.faults == [])


@pytest.mark.parametrize("wrong_tag", [None, 3])
def test_a_server_with_the_wrong_pooling_is_told_apart(model, served, wrong_tag):
    with PoolingServer(model, wrong_tag) as server, pytest.raises(ValueError, match="Start it with: vllm serve"):
        served(server.url).score(*ragged())


def test_nan_stays_with_its_rollout(folder, model, tag_id, served):
    def two_steps_are_nan(rows):
        return [[None, None]] * 2 if len(rows) == 2 else rows

    whole = load_prm(folder).score(*ragged())
    warned = pytest.warns(UserWarning, match=r"NaN or infinity for 2 rollout\(s\)")
    with PoolingServer(model, tag_id, tamper=two_steps_are_nan) as server, warned:
        scores = served(server.url).score(*ragged())
    for got, right in zip(scores, whole, strict=True):
        assert all(map(math.isnan, got)) if len(right) == 2 else got == pytest.approx(right, abs=1e-5)


def test_a_family_that_vllm_does_not_serve(tmp_path):
    folder = prm_checkpoints.skywork(tmp_path)
    with pytest.raises(ValueError, match="does not serve PRMs of family 'skywork_prm'"):
        load_prm(folder, placement="server")
