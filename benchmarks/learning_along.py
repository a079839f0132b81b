"""PRMs that learn along, and signals per token, against a frozen PRM, outcome-only and the ceiling, in the toy world.

    python benchmarks/learning_along.py tuning --builds 10 11            # what each contender learns with
    python benchmarks/learning_along.py contenders                       # plain world and long chains, eight builds
    python benchmarks/learning_along.py seconds --builds 23 24 25 26 27  # for as long as outcome-only takes
    python benchmarks/learning_along.py filler                           # does a refresh close the hole of a PRM?
    python benchmarks/learning_along.py show                             # the tables
    python benchmarks/learning_along.py costs                            # processor seconds over those of outcome-only
    python benchmarks/learning_along.py quality > quality.json           # for `benchmarks/pictures.py quality`

Outcome-only and exact labels are the runs of ``benchmarks/dense_rewards.py contenders``: the same builds and regimes.
The frozen PRM of the same runs is run again here, because every run measures its scores on its own rollouts against
exact labels, every tenth of its updates. Finished cells are kept in ``benchmarks/results/learning_along.jsonl``.
"""

import argparse
import json
import math
import os
import random
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from cells import Cell, one_quiet_thread, rows_of, work
from dense_rewards import LEARNED, METHOD, REGIMES, RESULTS as CONTENDERS, WORLDS, told
from dense_rewards_tables import part_table
from transformers import AutoTokenizer

from rlhf_prm.files import read_json_lines
from rlhf_prm.prm import load_prm
from rlhf_prm.prm.log_ratio import LogRatioScorer
from rlhf_prm.prm.token_model import load_token_model
from rlhf_prm.prm_training.implicit import ImplicitPRM, ImplicitSettings
from rlhf_prm.prm_training.implicit_models import TwoModels
from rlhf_prm.prm_training.refresh import RefreshSettings
from rlhf_prm.rl.scorers import Scorer
from rlhf_prm.toyworld import ToyWorld, ToyWorldSettings, build_world
from rlhf_prm.toyworld.label_stages import ROWS
from rlhf_prm.toyworld.problems import SEPARATOR
from rlhf_prm.toyworld.quick_grpo import Regime, quick_grpo
from rlhf_prm.toyworld.verifier import ExactMatchVerifier

RESULTS = Path(__file__).parent / "results" / "learning_along.jsonl"
REFRESHES = 3  # in a run, at equal distances
FIRST_RATE, FIRST_BATCH = 3e-4, 64  # of an implicit PRM that is trained before the run
QUALITIES = 10  # times that a run measures its scores
# The teacher: the world's policy, had its demonstrations been right, and more of them.
TEACHER = {"wrong_facts": 0.0, "sft_updates": 500, "label_source": "gold"}
# What each contender learns with: of `tuning`, the best mean accuracy over two builds of both worlds. The pretrained
# implicit PRM was tried on one build where chains are long (docs/learning_along.md).
CHOSEN: dict[str, dict[str, Any]] = {
    "frozen": {},
    "refreshed": {"labels": "judge", "learning_rate": 5e-4},
    "implicit": {"method": "trusted_tokens", "beta": 0.5, "learning_rate": 3e-4, "order": "after"},
    "implicit_pretrained": {
        "method": "trusted_tokens",
        "beta": 0.5,
        "learning_rate": 3e-5,
        "order": "after",
        "epochs": 8,
    },
    "teacher": {"teacher_weight": 0.3},
}
METHODS = {"outcome": "outcome", "frozen": METHOD, "refreshed": METHOD, "teacher": "distil"}
TUNED: dict[str, list[dict[str, Any]]] = {
    "outcome": [{}],  # these two have nothing to tune here: for `costs`
    "frozen": [{}],
    "refreshed": [
        {"labels": labels, "learning_rate": rate} for labels in ("judge", "outcome") for rate in (2e-4, 5e-4)
    ],
    "implicit": [
        *(
            {"method": method, "learning_rate": rate}
            for method in ("prime", "trusted_tokens")
            for rate in (3e-5, 1e-4, 3e-4)
        ),
        *(
            {"method": method, "beta": 0.5, "learning_rate": rate, "epochs": epochs, "order": order}
            for method, order in (("prime", "before"), ("trusted_tokens", "before"), ("trusted_tokens", "after"))
            for rate, epochs in ((3e-4, 0), (3e-5, 2), (3e-5, 8))
        ),
    ],
    "teacher": [{"teacher_weight": weight} for weight in (0.1, 0.3, 1.0)],
}


def cell(part: str, world: str, build: int, name: str, keywords: dict[str, Any]) -> Cell:
    """A run of a contender; ``scorer`` and ``method`` are for the tables."""
    method = METHODS.get(name) or keywords["method"]
    settings = ",".join(f"{key}={value}" for key, value in keywords.items() if key != "method")
    scorer = f"{name}:{settings}" if settings else name
    one = {"part": part, "world": world, "build": build, "scorer": scorer, "method": method}
    return one | {"regime": REGIMES[world], "keywords": keywords}


def tuning(builds: list[int]) -> Iterator[Cell]:
    """Every contender with each of its settings, plain world and long chains."""
    for build in builds:
        for world in ("plain", "long"):
            for name, settings in TUNED.items():
                for keywords in settings:
                    yield cell("tuning", world, build, name, keywords)


def contenders(builds: list[int]) -> Iterator[Cell]:
    """Every contender with its chosen setting, plain world and long chains."""
    for build in builds:
        for world in ("plain", "long"):
            for name, keywords in CHOSEN.items():
                yield cell("contenders", world, build, name, keywords)


def seconds(builds: list[int], spent: dict[str, dict[str, float]]) -> Iterator[Cell]:
    """Every contender for as many processor seconds as outcome-only takes: fewer updates, a faster decay.

    Args:
        spent: what ``costs`` gives.
    """
    for build in builds:
        for world in ("plain", "long"):
            for name, keywords in CHOSEN.items():
                one = cell("seconds", world, build, name, keywords)
                cost = spent[world][name.partition("_")[0]]  # training the PRM before the run is not counted
                updates = round(Regime(**REGIMES[world]).max_steps / cost)
                yield one | {"regime": REGIMES[world] | {"max_steps": updates}}


def filler(builds: list[int]) -> Iterator[Cell]:
    """Frozen and refreshed PRM where lines that say nothing are paid: labels of the judge, and of outcomes."""
    for build in builds:
        yield cell("filler", "filler", build, "frozen", {})
        for labels in ("judge", "outcome"):
            yield cell("filler", "filler", build, "refreshed", CHOSEN["refreshed"] | {"labels": labels})


PARTS = {"tuning": tuning, "contenders": contenders, "filler": filler}


def run(one: Cell, cache: str) -> dict[str, Any]:
    """Train and measure."""
    settings = ToyWorldSettings(seed=one["build"], **WORLDS[one["world"]], **LEARNED)
    name, keywords = one["scorer"].partition(":")[0], one["keywords"]
    world = build_world(settings, cache, with_prm=name in ("frozen", "refreshed") or "epochs" in keywords)
    regime = Regime(**one["regime"])
    every = max(1, regime.max_steps // QUALITIES)
    more: dict[str, Any] = {"measure_every": 0 if name == "outcome" else every}
    if name == "refreshed":
        more["refresh"] = RefreshSettings(every=regime.max_steps // (REFRESHES + 1), **keywords)
        more["label_options"] = {"votes": LEARNED["judge_votes"]} if keywords["labels"] == "judge" else {}
    method_kwargs = keywords if name == "teacher" else None
    result = quick_grpo(world, scorer_of(one, world, cache), one["method"], method_kwargs, regime, **more)
    result.pop("learnt")  # a row for every update, which no table reads
    return result


def scorer_of(one: Cell, world: ToyWorld, cache: str) -> Scorer | None:
    """The scorer that a cell names."""
    name, keywords = one["scorer"].partition(":")[0], one["keywords"]
    if name == "outcome":
        return None
    if name in ("frozen", "refreshed"):
        return load_prm(str(world.prm_path))
    if name in ("implicit", "implicit_pretrained"):
        policy = str(world.policy_path)
        models = TwoModels(load_token_model(policy), load_token_model(policy))
        if epochs := keywords.get("epochs"):
            pretrain(models, solved(world), keywords["beta"], epochs, one["build"])
        options = {key: value for key, value in keywords.items() if key not in ("method", "epochs")}
        return ImplicitPRM(models, ImplicitSettings(**options))
    teacher = ToyWorldSettings(seed=one["build"], **{**WORLDS[one["world"]], **TEACHER})
    return LogRatioScorer(load_token_model(str(build_world(teacher, cache, with_prm=False).policy_path)))


def solved(world: ToyWorld) -> list[SimpleNamespace]:
    """The solutions that the frozen PRM was trained on, as rollouts with a verdict on the answer."""
    tokenizer = AutoTokenizer.from_pretrained(world.policy_path)
    rows = read_json_lines(world.stages["solutions"].path / ROWS)
    verdicts = ExactMatchVerifier().verify([row["steps"][-1] for row in rows], [row["solution"] for row in rows])
    return [
        SimpleNamespace(
            prompt_ids=tokenizer(row["prompt"]).input_ids,
            completion_ids=[*tokenizer(SEPARATOR.join(row["steps"])).input_ids, tokenizer.eos_token_id],
            verdict=verdict.reward,
        )
        for row, verdict in zip(rows, verdicts, strict=True)
    ]


def pretrain(models: TwoModels, rows: list[SimpleNamespace], beta: float, epochs: int, seed: int) -> None:
    """Train an implicit PRM before a run on ``solved`` solutions, in a drawn order of each epoch."""
    learner = ImplicitPRM(models, ImplicitSettings(beta=beta, learning_rate=FIRST_RATE))
    rows, chance = list(rows), random.Random(seed)
    for _ in range(epochs):
        chance.shuffle(rows)
        for first in range(0, len(rows), FIRST_BATCH):
            learner.update(rows[first : first + FIRST_BATCH])


def costs(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """World → contender → processor seconds of `tuning` over those of outcome-only, mean over builds and settings."""
    spent: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        one = row["cell"]
        if one["part"] == "tuning":
            spent[one["world"], one["scorer"].partition(":")[0]].append(row["cpu_seconds"])
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for (world, name), seconds in spent.items():
        found[world][name] = round(fmean(seconds) / fmean(spent[world, "outcome"]), 2)
    return dict(found)


def baseline(rows: list[dict[str, Any]], builds: list[int]) -> list[dict[str, Any]]:
    """Outcome-only and exact labels of ``dense_rewards.py contenders``, in the worlds and regimes of this study."""
    parts = {"part": ("contenders",), "scorer": ("none", "oracle"), "world": ("plain", "long", "filler")}
    return [
        row
        for row in rows
        if (one := row["cell"])["build"] in builds
        and all(one[name] in values for name, values in parts.items())
        and one["regime"] == REGIMES[one["world"]]
    ]


def as_baseline(row: dict[str, Any]) -> dict[str, Any]:
    """The row; outcome-only is named as in ``dense_rewards.py``, whose tables compare with it."""
    return row | {"cell": row["cell"] | {"scorer": "none"}} if row["cell"]["scorer"] == "outcome" else row


def quality(rows: list[dict[str, Any]], metric: str) -> dict[str, dict[str, list[list[float]]]]:
    """World → contender → [update, mean over the builds, lowest, highest] of one measure of the scores."""
    curves: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    for row in rows:
        one = row["cell"]
        if one["part"] in ("contenders", "filler"):
            labels = one["keywords"].get("labels")
            name = one["scorer"].partition(":")[0] + (f", {labels}" if labels else "")
            for measured in row["scorer_quality"]:
                curves[one["world"], name, measured["update"]].append(measured[metric])
    found: dict[str, dict[str, list[list[float]]]] = defaultdict(lambda: defaultdict(list))
    for (world, name, update), values in sorted(curves.items()):
        if known := [value for value in values if math.isfinite(value)]:
            found[world][name].append([update, fmean(known), min(known), max(known)])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=(*PARTS, "seconds", "show", "costs", "quality"))
    parser.add_argument("--builds", type=int, nargs="+", default=list(range(23, 31)), help="default: 23 to 30")
    parser.add_argument("--only", nargs="+", choices=CHOSEN, help="these contenders (default: all)")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--baseline", type=Path, default=CONTENDERS, help="what dense_rewards.py has written")
    parser.add_argument("--metric", default="auroc", help="of `quality`: a key of `quality_of`")
    parser.add_argument("--cache", default="runs/cache", help="folder of the built worlds")
    args = parser.parse_args()
    one_quiet_thread()
    if args.part == "show":
        rows = [*baseline(rows_of(args.baseline), args.builds), *map(as_baseline, rows_of(args.results))]
        print("\n\n".join(f"## {part}\n{part_table(rows, part)}" for part in (*PARTS, "seconds")))
    elif args.part == "costs":
        print(json.dumps(costs(rows_of(args.results))))
    elif args.part == "quality":
        print(json.dumps(quality(rows_of(args.results), args.metric), indent=1))
    else:
        locks = Path(args.cache) / ".learning_along"
        if args.part == "seconds":
            spent = costs(rows_of(args.results))
            if missing := {"plain", "long"} - spent.keys():
                parser.error(f"seconds: got no costs for {', '.join(sorted(missing))}; run `tuning` first")
            cells = seconds(args.builds, spent)
        else:
            cells = PARTS[args.part](args.builds)
        if args.only:
            cells = (one for one in cells if one["scorer"].partition(":")[0] in args.only)
        work(cells, partial(run, cache=args.cache), args.results, locks, told)


if __name__ == "__main__":
    main()
