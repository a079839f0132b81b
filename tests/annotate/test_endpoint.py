"""Endpoints that misbehave: everything ends up labelled, and only the right things are given up."""

import asyncio
import json
import socket
import threading
import time

import pytest
from annotate_plugin import LastBoxVerifier, texts_of
from annotate_server import FAULTS, Server

from rlhf_prm.annotate import GenerationError, Generator, MonteCarloSettings, Rejection, monte_carlo
from rlhf_prm.annotate.config import read_config
from rlhf_prm.annotate.monte_carlo import monte_carlo_task
from rlhf_prm.annotate.pipeline import Pipeline
from rlhf_prm.generation.drivers import run_batched, run_concurrent
from rlhf_prm.generation.endpoint import EndpointError, EndpointGenerator
from rlhf_prm.generation.hosts import Hosts
from rlhf_prm.generation.requests import Generate

QUICK = {"first_wait": 0.01, "longest_wait": 0.05, "timeout": 0.4, "deadline": 30.0}
PROMPTS = [f"problem {i}" for i in range(20)]


def wanted(prompts, n, seeds):
    return [texts_of(prompt, n, seed) for prompt, seed in zip(prompts, seeds, strict=True)]


def annotate_all(folder, urls):
    (folder / "problems.jsonl").write_text(
        "".join(json.dumps({"problem": f"What is {i}?", "answer": "7"}) + "\n" for i in range(8))
    )
    model = {"model": "toy", "endpoints": urls, "template": "plain", "options": QUICK}
    pipeline = Pipeline(
        read_config(
            None,
            {
                "problems": str(folder / "problems.jsonl"),
                "out": str(folder),
                "policies": [model],
                "judge": model,
                "num_responses": 2,
                "verifier": "annotate_plugin.LastBoxVerifier",
                "concurrency": 16,
            },
        )
    )
    for name in ("sample", "monte_carlo", "judge"):
        pipeline.run(name)
    pipeline.consensus()
    return {name: (folder / f"{name}.jsonl").read_text() for name in ("monte_carlo", "judge", "consensus")}


def test_everything_ends_up_labelled(tmp_path, capsys):
    (tmp_path / "calm").mkdir()
    (tmp_path / "faulty").mkdir()
    with Server() as server:
        calm = annotate_all(tmp_path / "calm", [server.url])
    with Server(FAULTS, probability=0.5, seed=1) as one, Server(FAULTS, probability=0.5, seed=2) as two:
        faulty = annotate_all(tmp_path / "faulty", [one.url, two.url])
        assert set(one.seen) | set(two.seen) == {*FAULTS, "none"}
    assert faulty == calm
    assert len(calm["monte_carlo"].splitlines()) == len(calm["judge"].splitlines()) == 16
    assert not list((tmp_path / "faulty").glob("*/rejected.jsonl"))
    assert "attempts for" in capsys.readouterr().out


def test_texts_and_chats_go_where_they_belong():
    with Server() as server:
        generator = EndpointGenerator("m", [server.url + "/"], max_tokens=7, temperature=0.5, extra_body={"top_k": 3})
        assert isinstance(generator, Generator)
        chat = [{"role": "user", "content": "</paragraph_1>"}]
        assert generator.generate(["text", chat], 2, seed=[5, 6], stop=["\n"]) == wanted(["text", chat], 2, [5, 6])
    bodies = dict(server.bodies)
    common = {"model": "m", "max_tokens": 7, "temperature": 0.5, "top_p": 1.0, "top_k": 3, "n": 2, "stop": ["\n"]}
    assert bodies["/v1/completions"] == {"prompt": "text", "seed": 5, "return_token_ids": True, **common}
    assert bodies["/v1/chat/completions"] == {"messages": chat, "seed": 6, **common}
    assert generator.usage.completion_tokens == 40 and generator.usage.prompt_tokens == 20
    with Server() as server, pytest.raises(EndpointError):  # this server needs a seed: it answers nothing without
        EndpointGenerator("m", [server.url], send_seed=False, **QUICK | {"deadline": 0.1}).generate(["a"], 1, seed=1)


def test_concurrency_is_used_and_bounded():
    with Server() as server:
        server.together = threading.Barrier(6)  # would break with fewer in flight
        prompts = [*PROMPTS, *PROMPTS, "a", "b"]
        EndpointGenerator("m", [server.url], concurrency=6).generate(prompts, 1, seed=0)
        assert server.most_in_flight == 6


def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/v1"


def test_a_host_that_was_never_there_ends_the_run_in_seconds():
    """With the deadline of an hour that outages are waited out with."""
    generator, started = EndpointGenerator("toy", [closed_port(), closed_port()]), time.monotonic()
    with pytest.raises(EndpointError, match=r"no endpoint of 'toy' can be reached: .*ConnectError.*start the server"):
        generator.generate(["a"], 1, seed=0)
    assert time.monotonic() - started < 10 and not generator._clients
    with socket.socket() as silent:  # takes connections and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        with pytest.raises(EndpointError, match=r"no answer in 0\.2 s|ReadTimeout"):
            EndpointGenerator("m", [url], first_contact=0.2).generate(["a"], 1, seed=0)


def test_null_in_an_answer_is_said():
    with Server(["null"], probability=1.0) as server:
        generator = EndpointGenerator("m", [server.url], **QUICK | {"deadline": 1.5, "timeout": 5.0})
        with pytest.raises(EndpointError, match="garbage: null among the 2 texts"):
            generator.generate(["a"], 2, seed=0)
        chat = [{"role": "user", "content": "</paragraph_1>"}]  # a reasoning model that ran out of tokens
        assert EndpointGenerator("m", [server.url]).generate([chat], 1, seed=0) == [[""]]


def test_generate_works_where_a_loop_is_running():
    async def notebook():
        return EndpointGenerator("m", [server.url]).generate(["a"], 1, seed=[5], stop=None)

    with Server() as server:
        assert asyncio.run(notebook()) == wanted(["a"], 1, [5])


def test_a_dead_host_is_left_alone():
    with Server(latency=0.01) as server:
        generator = EndpointGenerator(
            "m", [closed_port(), server.url], concurrency=4, **QUICK | {"first_wait": 0.2, "longest_wait": 5.0}
        )
        assert generator.generate(PROMPTS * 3, 1, seed=[1] * 60) == wanted(PROMPTS * 3, 1, [1] * 60)
    assert 1 <= generator.usage.failures["ConnectError"] <= 30
    assert generator.usage.answered == 60


def test_an_outage_stops_the_run_and_sets_nothing_aside():
    generator = EndpointGenerator("m", [closed_port()], **QUICK | {"deadline": 1.0})
    generator.reached = True  # it was there when the run began
    with pytest.raises(EndpointError, match=r"nothing succeeded for 1 s.*ConnectError.*same command continues it"):
        generator.generate(["a"], 1, seed=0)


@pytest.mark.parametrize("fault", ["401", "404"])
def test_a_wrong_key_or_model_stops_the_run_at_once(fault):
    with Server(refuse="problem") as server:
        server.refusal = int(fault)
        with pytest.raises(EndpointError, match=f"answers {fault} for model 'm'.*check the URL"):
            EndpointGenerator("m", [server.url]).generate(PROMPTS, 1, seed=0)


def monte_carlo_over(generator, problems):
    settings = MonteCarloSettings(num_completions=2)
    chains = [["step 1", "so \\boxed{7}"]] * len(problems)
    tasks = [(p, monte_carlo_task(p, p, c, "7", settings)) for p, c in zip(problems, chains, strict=True)]
    results = {}
    asyncio.run(run_concurrent(tasks, generator, LastBoxVerifier(), window=5, finished=results.__setitem__))
    return results


def test_a_refused_prompt_is_set_aside_and_the_others_are_labelled():
    with Server(refuse="problem 7") as server:
        results = monte_carlo_over(EndpointGenerator("m", [server.url]), PROMPTS)
        again = EndpointGenerator("m", [server.url])
        batched = monte_carlo(PROMPTS, [["step 1", "so \\boxed{7}"]] * 20, ["7"] * 20, again, LastBoxVerifier())
    assert results["problem 7"] == Rejection('status 400: {"error": "the prompt is longer than the context"}')
    assert [p for p, r in results.items() if isinstance(r, Rejection)] == ["problem 7"]
    assert [i for i, r in enumerate(batched) if isinstance(r, Rejection)] == [7]


def test_a_prompt_that_always_fails_while_others_succeed_is_set_aside():
    with Server(refuse="problem 7", latency=0.02) as server:
        server.refusal = 500
        generator = EndpointGenerator("m", [server.url], **QUICK | {"deadline": 0.6})
        results = monte_carlo_over(generator, PROMPTS * 5)
    bad = results.pop("problem 7")
    assert isinstance(bad, Rejection) and "times in 0.6 s" in bad.reason
    assert not any(isinstance(result, Rejection) for result in results.values())


def test_a_host_rests_as_long_as_its_retry_after_says():
    with Server(["429"], probability=1.0) as server:
        server.retry_after = "0.3"
        generator = EndpointGenerator("m", [server.url], **QUICK)
        started = time.monotonic()

        async def first_then_well():
            async with generator:
                waiting = asyncio.create_task(generator.complete(Generate("a", 1, 0)))
                while not server.seen:
                    await asyncio.sleep(0.001)
                server.probability = 0.0
                return await waiting

        assert asyncio.run(first_then_well()) == texts_of("a", 1, 0)
        assert time.monotonic() - started >= 0.3 and server.seen == {"429": 1, "none": 1}


def test_the_same_group_goes_to_the_same_host_until_it_is_busy():
    hosts = Hosts([f"http://{name}/v1" for name in "abc"], share=2, first_rest=10, longest_rest=60)
    homes = {group: hosts.pick(group).url for group in map(str, range(60))}
    assert len(set(homes.values())) == 3
    assert all(hosts.pick(group).url == url for group, url in homes.items())
    home = hosts.pick("0")
    home.in_flight = 2
    assert hosts.pick("0") is not home
    hosts.failed(home, None)
    home.in_flight = 0
    assert hosts.pick("0") is not home
    moved = sum(hosts.pick(group).url != url for group, url in homes.items())
    assert moved == sum(url == home.url for url in homes.values())  # only its own groups went elsewhere


def test_hosts_rest_longer_with_every_failure_in_a_row(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    hosts = Hosts(["http://a/v1"], share=2, first_rest=1, longest_rest=5)
    (host,) = hosts.hosts
    rests = []
    for _ in range(5):
        hosts.failed(host, None)
        hosts.failed(host, None)  # in flight at the same time: counts once
        rests.append(hosts.seconds_until_one_wakes())
        assert hosts.pick("") is None
        now[0] = host.rests_until
        assert hosts.pick("") is host
    assert rests == [1, 2, 4, 5, 5]
    hosts.succeeded(host)
    hosts.failed(host, 30.0)
    assert hosts.seconds_until_one_wakes() == 30
    hosts.first_rest, host.failures, host.rests_until = 0.5, 2000, 0.0  # as after a night
    hosts.failed(host, None)
    assert host.rests_until - now[0] == 5


@pytest.mark.parametrize("concurrent", [False, True])
def test_few_tasks_are_alive_at_once(concurrent):
    alive, most = set(), [0]

    def task(i):
        alive.add(i)
        most[0] = max(most[0], len(alive))
        yield Generate(f"p{i}", 1, i)
        if i == 5:
            raise GenerationError("odd")
        alive.discard(i)
        return i

    tasks = ((i, task(i)) for i in range(50))
    results = {}
    with Server() as server:
        generator = EndpointGenerator("m", [server.url])
        if concurrent:
            asyncio.run(run_concurrent(tasks, generator, window=7, finished=results.__setitem__))
        else:
            results = dict(run_batched(tasks, generator, window=7))
    assert results == {**{i: i for i in range(50)}, 5: Rejection("odd")}
    assert most[0] <= 8  # the task that was rejected stays in the set


def test_a_verifier_that_fails_ends_the_run():
    class Broken:
        def verify(self, completions, solutions):
            raise RuntimeError("no workers")

    async def work(generator):
        task = monte_carlo_task("k", "p", ["so \\boxed{7}"], "7", MonteCarloSettings())
        await run_concurrent([("k", task)], generator, Broken(), finished=lambda key, result: None)

    with Server() as server, pytest.raises(RuntimeError, match="no workers"):
        asyncio.run(work(EndpointGenerator("m", [server.url])))


def test_an_outage_is_said_while_it_lasts(monkeypatch, caplog):
    monkeypatch.setattr("rlhf_prm.generation.endpoint._QUIET", 0)
    generator = EndpointGenerator("m", [closed_port()], **QUICK | {"deadline": 1.0})
    generator.reached = True  # it was there when the run began
    with pytest.raises(EndpointError):
        generator.generate(["a"], 1, seed=0)
    assert "no endpoint has answered" in caplog.text and "ConnectError" in caplog.text


def test_no_url_is_refused():
    with pytest.raises(ValueError, match="got no URL"):
        EndpointGenerator("m", [])


def test_all_prefixes_of_a_problem_go_to_one_host():
    with Server() as one, Server() as two:
        generator = EndpointGenerator("m", [one.url, two.url], concurrency=64)
        chain = ["step 1", "step 2", "so \\boxed{7}"]
        settings = MonteCarloSettings(num_completions=1, stop_at_first_miss=False)
        tasks = [(p, monte_carlo_task(p, f"{p}.", chain, "7", settings)) for p in PROMPTS * 2]
        asyncio.run(run_concurrent(tasks, generator, LastBoxVerifier(), window=8, finished=lambda key, result: None))
        seen = [{body["prompt"].partition(".")[0] for _, body in server.bodies} for server in (one, two)]
    assert seen[0] and seen[1] and not seen[0] & seen[1]
    assert seen[0] | seen[1] == set(PROMPTS) and len(one.bodies) + len(two.bodies) == 2 * 2 * len(PROMPTS)


def test_verdicts_that_wait_are_fetched_together():
    class Slow(LastBoxVerifier):
        calls = running = 0

        def verify(self, completions, solutions):
            self.calls, self.running = self.calls + 1, self.running + 1
            assert self.running == 1
            time.sleep(0.02)
            self.running -= 1
            return super().verify(completions, solutions)

    slow, results = Slow(), {}
    tasks = [(i, monte_carlo_task(i, "p", ["so \\boxed{7}"], "7", MonteCarloSettings())) for i in range(40)]
    with Server() as server:
        generator = EndpointGenerator("m", [server.url])
        asyncio.run(run_concurrent(tasks, generator, slow, window=20, finished=results.__setitem__))
    assert len(results) == 40 and all(labels.labels == [True] for labels in results.values())
    assert slow.calls <= 4
