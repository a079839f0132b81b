"""Solutions labelled per second through the async endpoint client, against one request at a time.

    python benchmarks/annotate.py             # the two rates and their ratio
    python benchmarks/annotate.py --write     # also benchmarks/results/annotate_<hardware>.json

A local server in its own process answers every request after --latency seconds, so this measures the client and the
drivers, not a model. The ratio cannot exceed --concurrency; a quiet core gives about 1000 / (CPU ms per call) calls/s.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import re
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from methods import hardware

from reward.verifier import Verdict
from rlhf_prm.annotate.monte_carlo import MonteCarloSettings, monte_carlo_task
from rlhf_prm.generation.drivers import run_concurrent
from rlhf_prm.generation.endpoint import EndpointGenerator
from rlhf_prm.generation.tasks import Task

RESULTS = Path(__file__).parent / "results"
STEPS = ["first step", "second step", "third step", "\\boxed{7}"]
CALLS = len(STEPS) - 1  # per solution


class AlwaysRight:
    """A verifier that costs nothing."""

    def verify(self, completions: list[str], solutions: list[str]) -> list[Verdict]:
        return [Verdict(1.0, "correct", "7", 0.0)] * len(completions)


def serve(latency: float, port: object) -> None:
    """Answer every request with 8 completions after ``latency`` seconds, for ever."""
    answer = json.dumps({"choices": [{"text": "so \\boxed{7}"}] * 8}).encode()
    response = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):  # the client is done
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head.lower())  # none where the client looks for a host
                await reader.readexactly(int(length[1]) if length else 0)
                await asyncio.sleep(latency)
                writer.write(response)

    async def run() -> None:
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


def tasks(solutions: int) -> Iterator[tuple[int, Task]]:
    settings = MonteCarloSettings()
    return ((i, monte_carlo_task(i, f"problem {i}\n\n", STEPS, "7", settings)) for i in range(solutions))


def rate(url: str, solutions: int, concurrency: int) -> dict[str, float]:
    """Solutions per second and the client's own milliseconds per call, ``concurrency`` requests in flight."""
    generator = EndpointGenerator("m", [url], concurrency=concurrency)
    done: dict[int, object] = {}
    window = concurrency + concurrency // 2
    start, cpu = time.perf_counter(), time.process_time()
    asyncio.run(run_concurrent(tasks(solutions), generator, AlwaysRight(), window=window, finished=done.__setitem__))
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    assert len(done) == solutions and generator.usage.attempts == solutions * CALLS
    return {"solutions_per_second": solutions / seconds, "cpu_ms_per_call": 1000 * cpu / solutions / CALLS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds the server takes")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--solutions", type=int, default=1500)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/annotate_<hardware>.json")
    args = parser.parse_args()
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("fork").Process(target=serve, args=(args.latency, there), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{here.recv()}/v1"
    rates = {
        "concurrent": rate(url, args.solutions, args.concurrency),
        "sequential": rate(url, max(1, args.solutions // 30), 1),
    }
    server.terminate()
    ratio = rates["concurrent"]["solutions_per_second"] / rates["sequential"]["solutions_per_second"]
    print(f"{CALLS} calls per solution, {args.latency * 1000:g} ms each, {args.concurrency} in flight")
    for name, row in rates.items():
        print(
            f"{name:12}{row['solutions_per_second']:9.1f} solutions/s{row['solutions_per_second'] * CALLS:9.1f} calls/s"
            f"{row['cpu_ms_per_call']:8.2f} ms of CPU per call"
        )
    print(f"ratio {ratio:.1f}")
    if args.write:
        name = re.sub(r"[^a-z0-9]+", "-", str(hardware()["cpu"]).lower()).strip("-")
        report = {
            "date": str(date.today()),
            "hardware": hardware(),
            "settings": {key: getattr(args, key) for key in ("latency", "concurrency", "solutions")},
            "rates": rates,
            "ratio": ratio,
        }
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"annotate_{name}.json"
        path.write_text(json.dumps(report, indent=2) + "\n")
        print(f"written: {path}")


if __name__ == "__main__":
    main()
