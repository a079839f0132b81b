"""Log-probabilities of tokens: against one forward per rollout, over HTTP, and who may be a teacher at all."""

import json
import math
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
import torch

from rlhf_prm.generation.endpoint import EndpointError
from rlhf_prm.generation.log_probs import EndpointTokenModel
from rlhf_prm.prm.log_ratio import LogRatioScorer, distance
from rlhf_prm.prm.token_model import check_tokenizers, load_token_model
from tests.tiny import tiny_policy, tiny_tokenizer

SEQUENCES = [([5, 6, 7], [9, 3]), ([8], [10, 11, 12, 4]), ([4, 4], [7])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher")
    tiny_policy(seed=3).save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


def naive(model, prompt, ids, temperature=1.0):
    with torch.no_grad():
        logits = model(torch.tensor([prompt + ids])).logits[0] / temperature
    return logits.log_softmax(-1)[len(prompt) - 1 : -1].gather(1, torch.tensor(ids)[:, None])[:, 0]


@pytest.mark.parametrize(("placement", "budget"), [("replicate", 1), ("replicate", 1000), ("offload", 8)])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_equals_one_forward_per_rollout(folder, placement, budget, temperature):
    model = load_token_model(folder, placement, max_batch_tokens=budget, temperature=temperature)
    own = tiny_policy(seed=3).eval()
    for (prompt, ids), got in zip(SEQUENCES, model.log_probs(SEQUENCES), strict=True):
        torch.testing.assert_close(got, naive(own, prompt, ids, temperature), atol=1e-5, rtol=1e-5)
    assert model.log_probs([]) == []


def test_what_lies_past_the_context_is_not_a_number(folder):
    model = load_token_model(folder, max_length=3)
    whole = load_token_model(folder).log_probs(SEQUENCES)
    for (prompt, _), got, wanted in zip(SEQUENCES, model.log_probs(SEQUENCES), whole, strict=True):
        seen = max(0, 3 - len(prompt))
        torch.testing.assert_close(got[:seen], wanted[:seen], atol=1e-5, rtol=1e-5)
        assert got[seen:].isnan().all()


def test_the_score_is_how_much_likelier_the_teacher_finds_the_token(folder):
    model, student = load_token_model(folder), tiny_policy(seed=4).eval()
    rollouts = [
        SimpleNamespace(prompt_ids=p, completion_ids=ids, log_probs=naive(student, p, ids)) for p, ids in SEQUENCES
    ]
    teacher = tiny_policy(seed=3).eval()
    scorer, start = LogRatioScorer(model), LogRatioScorer(model, sign=-1)
    for one, score, other in zip(rollouts, scorer.score_tokens(rollouts), start.score_tokens(rollouts), strict=True):
        wanted = naive(teacher, one.prompt_ids, one.completion_ids) - one.log_probs
        torch.testing.assert_close(score, wanted, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(other, -wanted, atol=1e-5, rtol=1e-5)
    assert scorer.stats.tokens == 7 and scorer.stats.unscored_tokens == 0
    scorer.at_temperature(0.5)
    assert model.reader.temperature == 0.5


def test_the_distance_by_hand():
    found = distance([torch.tensor([-1.0, -6.0]), torch.tensor([math.nan, 1.0])])
    assert found == pytest.approx({"kl": 2.0, "beyond_5": 1 / 3, "worst": -6.0})


def test_a_teacher_that_reads_other_ids_is_refused(folder, tmp_path):
    own = tiny_tokenizer()
    check_tokenizers(own, folder, " 1 + 2 =")
    other = tiny_tokenizer()
    other.add_tokens(["more"])
    other.save_pretrained(tmp_path / "more")
    check_tokenizers(own, tmp_path / "more")  # tokens that the policy never writes do no harm
    with pytest.raises(ValueError, match="None for token 'more', the policy's has"):
        check_tokenizers(other, folder)
    ends = tiny_tokenizer()
    ends.eos_token = "<unk>"
    with pytest.raises(ValueError, match="end-of-sequence id is 1, the policy's is 2"):
        check_tokenizers(ends, folder)


class Served:
    """``vllm serve`` as far as prompt_logprobs go, on the model of a folder; ``silent`` knows nothing of them."""

    def __init__(self, model, silent=False):
        self.model, self.silent, self.bodies, self.failures = model, silent, [], 1

    def __enter__(self):
        outer = self

        def own(ids):
            return naive(self.model, ids[:1], ids[1:]).tolist()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.answer(200, {})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.bodies.append(body)
                ids = body["prompt"]
                if outer.failures and not outer.silent:
                    outer.failures -= 1
                    return self.answer(503, {})
                if len(ids) > 5:
                    return self.answer(400, {"message": "too long"})
                told = [None, *({str(t): {"logprob": p}, "2": {"logprob": -9.0}} if t != 2 else {"2": {"logprob": p}}
                                for t, p in zip(ids[1:], own(ids), strict=True))]  # fmt: skip
                choice = {"text": "x"} | ({} if outer.silent else {"prompt_logprobs": told})
                self.answer(200, {"choices": [choice], "usage": {"prompt_tokens": len(ids), "completion_tokens": 1}})

            def answer(self, status, content):
                data = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()


def test_an_endpoint_tells_the_same(folder):
    """Ids as they are; one attempt fails and is repeated; a rollout past the host's context has no scores."""
    with Served(tiny_policy(seed=3).eval()) as server:
        model = EndpointTokenModel("teacher", [server.url], first_wait=0.01)
        found = model.log_probs([*SEQUENCES, ([4, 5, 6], [7, 8, 9])])
        wanted = load_token_model(folder).log_probs(SEQUENCES)
        for got, one in zip(found, wanted, strict=False):
            torch.testing.assert_close(got, one, atol=1e-5, rtol=1e-5)
        assert found[3].isnan().all() and found[3].shape == (3,)
        body = next(body for body in server.bodies if body["prompt"] == [4, 4, 7])
        assert (body["model"], body["max_tokens"], body["prompt_logprobs"]) == ("teacher", 1, 1)
        scorer = LogRatioScorer(model)
        scorer.at_temperature(1.0)
        with pytest.raises(ValueError, match=r"temperature: got 0\.7 beside a teacher behind an endpoint"):
            scorer.at_temperature(0.7)


def test_a_server_without_log_probabilities_is_named():
    with Served(tiny_policy(), silent=True) as server, pytest.raises(EndpointError, match="without prompt_logprobs"):
        EndpointTokenModel("teacher", [server.url]).log_probs(SEQUENCES)
