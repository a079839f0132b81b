"""Do process rewards help the policy? Outcome-only, a method on a learned PRM, and the ceiling, in the toy world.

    python benchmarks/dense_rewards.py contenders --builds 23 24 25    # outcome-only, learned PRM, exact labels
    python benchmarks/dense_rewards.py methods --builds 23 24 25       # every other method on the learned PRM
    python benchmarks/dense_rewards.py hostile --builds 23 24 25       # scorers that mislead, plain world
    python benchmarks/dense_rewards.py curve --builds 28 29            # scorers of every quality, with preflight
    python benchmarks/dense_rewards.py seconds --builds 23 24 25 26 27 # as long as outcome-only takes
    python benchmarks/dense_rewards.py tuning --builds 10 11           # outcome-only: learning rate × prompts
    python benchmarks/dense_rewards.py judges --builds 23 24 25        # the judge itself as scorer, with its cost
    python benchmarks/dense_rewards.py vine --builds 23 24 25         # live Monte-Carlo values of step prefixes
    python benchmarks/dense_rewards.py measure                         # what preflight says of them, anew
    python benchmarks/dense_rewards.py pairs --output pairs.json       # for benchmarks/preflight_validation.py

A cell is one training run (15 to 60 seconds on one core, after its world has been built); finished ones are kept in
``benchmarks/results/dense_rewards.jsonl`` and not run again. Several calls may share the work: each claims a cell by a
lock. ``rlhf_prm.toyworld.quick_grpo`` trains; the baseline's regime was tuned on builds 10 and 11 (``tuning``).
``benchmarks/dense_rewards_tables.py`` prints the tables.
"""

import argparse
import json
import math
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import yaml
from cells import Cell, one_quiet_thread, rows_of, work

from reward import METHODS
from rlhf_prm.evaluation.samples import SampledProblem, scored
from rlhf_prm.files import write_json_lines
from rlhf_prm.judges.load import load_judge
from rlhf_prm.judges.scorer import JudgeScorer
from rlhf_prm.preflight.measures import preflight_measures
from rlhf_prm.prm import load_prm
from rlhf_prm.rl.live_values import LiveMonteCarloScorer
from rlhf_prm.rl.scorers import Scorer
from rlhf_prm.toyworld import ToyWorld, ToyWorldSettings, build_world
from rlhf_prm.toyworld.hostile import HOSTILE, HostileScorer
from rlhf_prm.toyworld.judge import FallibleJudge
from rlhf_prm.toyworld.oracle import OracleScorer
from rlhf_prm.toyworld.prm_check import checked_samples
from rlhf_prm.toyworld.quick_grpo import Regime, quick_grpo

RESULTS = Path(__file__).parent / "results" / "dense_rewards.jsonl"
WORLDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "long": {"long_chains": True},
    "filler": {"filler": True},
    "gold10": {"gold_fraction": 0.1},
}
MEASURED = 256  # problems × 8 samples of the starting policy, for the measures
LEARNED = {"label_source": "judge", "judge_votes": 8}
METHOD = "trusted"
# The best of the nine of `tuning` for outcome-only, by its mean accuracy on builds 10 and 11; every method trains so.
SMALL_STEPS = {"learning_rate": 1.5e-4, "prompts": 4, "max_steps": 160}
REGIMES: dict[str, dict[str, Any]] = {
    "plain": {},
    "long": SMALL_STEPS,
    "filler": SMALL_STEPS,
    "gold10": {"learning_rate": 1.5e-4},
}
# CPU-seconds of a training on the learned PRM over those of outcome-only, of as many updates, both measured in one go.
COST = {"plain": 1.15, "long": 1.13, "filler": 1.20, "gold10": 1.12}
# Tokens of an update with one vote of the judge, read and written, over those that the policy writes in it.
TOKENS = 6
FITTED_CURVE = 28  # the build whose curve the preflight's rule was fitted to


def cell(part: str, world: str, build: int, scorer: str, method: str, regime: dict[str, Any], **more: Any) -> Cell:
    """One run: what it is, as JSON."""
    return {"part": part, "world": world, "build": build, "scorer": scorer, "method": method, "regime": regime, **more}


def contenders(builds: list[int]) -> Iterator[Cell]:
    """Outcome-only, the method on the learned PRM, and on exact labels, in every world."""
    for build in builds:
        for world in WORLDS:
            yield cell("contenders", world, build, "none", "outcome", REGIMES[world])
            for scorer in ("learned", "oracle"):
                yield cell("contenders", world, build, scorer, METHOD, REGIMES[world])


def methods(builds: list[int]) -> Iterator[Cell]:
    """Every other method with its default keywords on the learned PRM, in every world."""
    apart = ("outcome", METHOD, "vine", "gigpo", "mt_grpo", "gtpo")  # the last three credit turns: benchmarks/turns.py
    others = [name for name in METHODS if name not in apart]
    for build in builds:
        for world in WORLDS:
            yield cell("contenders", world, build, "none", "outcome", REGIMES[world])
            for name in others:
                yield cell("methods", world, build, "learned", name, REGIMES[world])


def hostile(builds: list[int]) -> Iterator[Cell]:
    """Scorers that mislead, and a PRM of random weights, in the plain world."""
    for build in builds:
        yield cell("contenders", "plain", build, "none", "outcome", REGIMES["plain"])
        for scorer in (*HOSTILE, "random_weights"):
            yield cell("hostile", "plain", build, scorer, METHOD, REGIMES["plain"])


def curve(builds: list[int]) -> Iterator[Cell]:
    """Scorers of every quality: exact labels with errors, PRMs of few updates, every source of labels.

    Exact labels themselves and the PRM of `contenders` are found there.
    """
    flips = [f"oracle:{kind}={share}" for kind in ("random", "systematic") for share in (0.1, 0.2, 0.35)]
    learned = [f"learned:prm_updates={updates}" for updates in (100, 200)]
    sources = [f"learned:label_source={source}" for source in ("gold", "judge", "consensus", "mc")]
    for build in builds:
        for world in ("plain", "long", "filler"):
            yield cell("contenders", world, build, "none", "outcome", REGIMES[world])
            for scorer in (*flips, *learned, *sources, "inverted", "noise"):
                yield cell("curve", world, build, scorer, METHOD, REGIMES[world])


def seconds(builds: list[int]) -> Iterator[Cell]:
    """The method on the learned PRM for as many seconds as outcome-only takes: fewer updates, a faster decay."""
    for build in builds:
        for world, regime in REGIMES.items():
            yield cell("contenders", world, build, "none", "outcome", regime)
            updates = round(Regime(**regime).max_steps / COST[world])
            yield cell("seconds", world, build, "learned", METHOD, {**regime, "max_steps": updates})


def tuning(builds: list[int]) -> Iterator[Cell]:
    """Outcome-only over learning rate × prompts per update, at the same number of rollouts."""
    for build in builds:
        for world in WORLDS:
            for rate in (1.5e-4, 3e-4, 6e-4):
                for prompts, updates in ((4, 160), (8, 80), (16, 40)):
                    regime = {"learning_rate": rate, "prompts": prompts, "max_steps": updates}
                    yield cell("tuning", world, build, "none", "outcome", regime)


def judges(builds: list[int]) -> Iterator[Cell]:
    """The fallible judge itself as scorer, with 1 and 4 votes, against the PRM from its labels and the ceiling.

    The PRM of a judge that is wrong about 10 % of the operations, and the ceiling, are those of `contenders`.
    Outcome-only also runs for as many tokens as a run with one vote takes.
    """
    asked = [f"judge:votes={votes},flips={flips}" for flips in (0.1, 0.2) for votes in (1, 4)]
    for build in builds:
        for world in ("plain", "long"):
            yield cell("contenders", world, build, "none", "outcome", REGIMES[world])
            for scorer in ("learned", "oracle"):
                yield cell("contenders", world, build, scorer, METHOD, REGIMES[world])
            for scorer in (*asked, "learned:judge_flips=0.2"):
                yield cell("judges", world, build, scorer, METHOD, REGIMES[world])
            for method in ("capo", "fapo"):
                yield cell("judges", world, build, asked[1], method, REGIMES[world])
            yield cell("judges", world, build, "none", "outcome", longer_regime(world))


def longer_regime(world: str) -> dict[str, Any]:
    """The world's regime with as many times the updates as a vote of the judge takes tokens."""
    return {**REGIMES[world], "max_steps": TOKENS * Regime(**REGIMES[world]).max_steps}


def longer(builds: list[int]) -> Iterator[Cell]:
    """Six times the updates: do dense rewards bring a better end, or only a faster start?

    Outcome-only's are the runs of ``judges``.
    """
    for build in builds:
        for world in ("plain", "long"):
            yield cell("judges", world, build, "none", "outcome", longer_regime(world))
            for scorer in ("learned", "oracle"):
                yield cell("longer", world, build, scorer, METHOD, longer_regime(world))


def vine(builds: list[int]) -> Iterator[Cell]:
    """Live Monte-Carlo values of step prefixes, 4 completions each: the expensive reference."""
    for build in builds:
        for world in ("plain", "long"):
            yield cell("contenders", world, build, "none", "outcome", REGIMES[world])
            yield cell("vine", world, build, "vine:completions=4", "vine", REGIMES[world])


PARTS = {
    "contenders": contenders,
    "methods": methods,
    "hostile": hostile,
    "curve": curve,
    "seconds": seconds,
    "tuning": tuning,
    "judges": judges,
    "longer": longer,
    "vine": vine,
}


def world_of(one: Cell, cache: str) -> ToyWorld:
    """The world of a cell, with the PRM that its scorer asks for."""
    name, _, given = one["scorer"].partition(":")
    chosen = dict(LEARNED)
    if name == "learned" and given:
        key, value = given.split("=")
        chosen |= {key: yaml.safe_load(value)}
        if key == "label_source":
            chosen |= {"judge_votes": 1}
    return build_world(ToyWorldSettings(seed=one["build"], **WORLDS[one["world"]], **chosen), cache)


def scorer_of(one: Cell, world: ToyWorld) -> Scorer | None:
    """The scorer that a cell names."""
    name, _, given = one["scorer"].partition(":")
    if name == "none":
        return None
    if name == "oracle":
        kind, _, share = given.partition("=")
        flips = {f"{kind}_flips": float(share)} if given else {}
        return OracleScorer(seed=one["build"], **flips)
    if name == "judge":
        return judge_of(given, one["build"])
    if name == "vine":
        return LiveMonteCarloScorer(int(given.removeprefix("completions=")), max_steps=None, batch_size=512)
    if name in HOSTILE:
        return HostileScorer(name)
    prm = load_prm(str(world.prm_path))
    if name == "random_weights":
        torch.manual_seed(one["build"])
        for parameter in prm.placement.reader.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return prm


def judge_of(given: str, build: int) -> JudgeScorer:
    """The toy world's judge behind ``load_judge``; ``given`` is such as "votes=4,flips=0.1"."""
    settings = dict(part.split("=") for part in given.split(",") if part)
    if unknown := settings.keys() - {"votes", "flips"}:
        raise ValueError(f"scorer judge: got {', '.join(unknown)}, expected votes and flips")
    generator = FallibleJudge(float(settings.get("flips", 0.1)), build)
    return load_judge("toy", generator=generator, votes=int(settings.get("votes", 1)), seed=build)


def run(one: Cell, cache: str) -> dict[str, Any]:
    """Train and measure; for the curve also what preflight says of the scorer on the starting policy's samples.

    For the judges also what the judge has cost in all.
    """
    world = world_of(one, cache)
    scorer = scorer_of(one, world)
    result = quick_grpo(
        world, scorer, one["method"], one.get("method_kwargs"), Regime(**one["regime"]), seed=one.get("seed", 0)
    )
    if isinstance(scorer, JudgeScorer):
        result["judge"] = vars(scorer.stats).copy()  # of the training alone; tokens are characters / 3.5
    if scorer is not None and one["part"] in ("contenders", "curve", "hostile", "judges"):
        result["measures"] = preflight_measures(scored(checked_samples(world, MEASURED, 8), scorer))
    return result


def told(result: dict[str, Any]) -> str:
    """A result in a few words."""
    return f"accuracy {result['accuracy']:.3f}, all steps right {result['process_accuracy']:.3f}"


def measure(results: Path, cache: str) -> None:
    """The measures of all finished rows with today's preflight on ``MEASURED`` problems; training is not repeated."""
    samples: dict[tuple[str, int], list[SampledProblem]] = {}
    rows = rows_of(results)
    for row in rows:
        one = row["cell"]
        if "measures" not in row:
            continue
        world = world_of(one, cache)
        key = one["world"], one["build"]
        if key not in samples:
            samples[key] = checked_samples(world, MEASURED, 8)
        row["measures"] = preflight_measures(scored(samples[key], scorer_of(one, world)))
    write_json_lines(results, rows)


def pairs_with_cells(rows: list[dict[str, Any]]) -> list[tuple[dict[str, Any], Cell]]:
    """(measures, gain) of every run with measures, in the world's regime, and the cell of that run."""
    base = {
        (row["cell"]["world"], row["cell"]["build"], json.dumps(row["cell"]["regime"])): row["accuracy"]
        for row in rows
        if row["cell"]["scorer"] == "none" and row["cell"]["part"] == "contenders"
    }
    found = []
    for row in rows:
        one = row["cell"]
        key = one["world"], one["build"], json.dumps(one["regime"])
        if "measures" not in row or key not in base or one["regime"] != REGIMES[one["world"]]:
            continue
        before, after = base[key], row["accuracy"]
        error = math.sqrt((before * (1 - before) + after * (1 - after)) / 2048)
        pair = {"measures": row["measures"], "gain": after - before, "gain_se": error}
        found.append((pair | {"world": one["world"], "build": one["build"], "prm": one["scorer"]}, one))
    return found


def pairs(rows: list[dict[str, Any]], *, new: bool) -> list[dict[str, Any]]:
    """What ``preflight_validation.py`` reads: the pairs that its rule was fitted to, or those that came after it.

    These are the curve of other builds and the judges; the rule is of one method.
    """
    found = []
    for pair, one in pairs_with_cells(rows):
        later = one["part"] == "judges" or (one["part"] == "curve" and one["build"] != FITTED_CURVE)
        if later == new and one["method"] == METHOD:
            found.append(pair)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=(*PARTS, "measure", "pairs", "new-pairs"))
    parser.add_argument("--builds", type=int, nargs="+", default=list(range(23, 31)), help="default: 23 to 30")
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=list(WORLDS))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--cache", default="runs/cache", help="folder of the built worlds")
    parser.add_argument("--output", type=Path, help="of `pairs` and `new-pairs`")
    args = parser.parse_args()
    one_quiet_thread()
    if args.part in ("pairs", "new-pairs"):
        text = json.dumps(pairs(rows_of(args.results), new=args.part == "new-pairs"), indent=1) + "\n"
        sys.stdout.write(text) if args.output is None else args.output.write_text(text)
    elif args.part == "measure":
        measure(args.results, args.cache)
    else:
        cells = [one for one in PARTS[args.part](args.builds) if one["world"] in args.worlds]
        work(cells, partial(run, cache=args.cache), args.results, Path(args.cache) / ".dense_rewards", told)


if __name__ == "__main__":
    main()
