"""The tables of what ``benchmarks/dense_rewards.py`` has measured.

    python benchmarks/dense_rewards_tables.py show --builds 23 24     # every part: gains over outcome-only
    python benchmarks/dense_rewards_tables.py methods                 # all methods × worlds, as in docs/ablation.md
    python benchmarks/dense_rewards_tables.py judges                  # judges as scorers, and what they cost
    python benchmarks/dense_rewards_tables.py longer                  # the usual updates, and six times as many
    python benchmarks/dense_rewards_tables.py forests                 # the data of `benchmarks/pictures.py ablation`

A gain is that of a run over outcome-only on the same build. Its interval is at 95 % (``rlhf_prm.statistics``).
"""

import argparse
import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from cells import rows_of
from dense_rewards import METHOD, PARTS, REGIMES, RESULTS, WORLDS, longer_regime

from rlhf_prm.statistics import difference_interval, difference_p_value, holm_adjusted
from rlhf_prm.toyworld.quick_grpo import Regime

Row = dict[str, Any]
METRICS = ("accuracy", "process_accuracy")
COMPARED = range(23, 28)  # the builds on which every method ran
CEILING = f"{METHOD}, exact labels"


def gains_of(found: dict[int, Row], base: dict[int, Row], metric: str = "accuracy") -> dict[int, float]:
    """By build, how much higher ``found`` ended than ``base``; builds that one of them lacks are left out."""
    return {build: row[metric] - base[build][metric] for build, row in sorted(found.items()) if build in base}


def outcome_only(rows: list[Row], world: str) -> dict[int, Row]:
    """Outcome-only in the world's regime, by build."""
    return {
        row["cell"]["build"]: row
        for row in rows
        if (row["cell"]["part"], row["cell"]["scorer"], row["cell"]["world"]) == ("contenders", "none", world)
        and row["cell"]["regime"] == REGIMES[world]
    }


def part_table(rows: list[Row], part: str) -> str:
    """Per world: scorer, method and regime against outcome-only of the same builds, Holm-adjusted within the part."""
    runs: dict[tuple[str, str, str, str], dict[int, Row]] = defaultdict(dict)
    for row in rows:
        one = row["cell"]
        if one["part"] == part:
            runs[one["world"], one["scorer"], one["method"], json.dumps(one["regime"])][one["build"]] = row
    base = {world: outcome_only(rows, world) for world in WORLDS}
    gains = {key: gains_of(found, base[key[0]]) for key, found in runs.items()}
    compared = [key for key in sorted(runs) if (key[1], json.loads(key[3])) != ("none", REGIMES[key[0]])]
    adjusted = dict(zip(compared, holm_adjusted([_p(gains[key]) for key in compared]), strict=True))
    out = ["| world | scorer | method | regime | builds | accuracy | all right | gain | gain, all right | p (Holm) |"]
    out.append("|---|---|---|---|---|---|---|---|---|---|")
    for key, found in sorted(runs.items()):
        world, scorer, method, regime = key
        cells = [world, scorer, method, regime, str(len(found))]
        cells += [f"{_mean([row[metric] for row in found.values()]):.3f}" for metric in METRICS]
        if key in adjusted:
            cells += [_interval(list(gains_of(found, base[world], metric).values())) for metric in METRICS]
            cells += [f"{adjusted[key]:.4f}"]
        out.append("| " + " | ".join(cells) + " |")
    return "\n".join(out)


def method_gains(rows: list[Row], world: str) -> dict[str, dict[int, float]]:
    """Method → gain by build, on the learned PRM of the world, highest mean first; the ceiling stands among them."""
    runs: dict[str, dict[int, Row]] = defaultdict(dict)
    for row in rows:
        one = row["cell"]
        if one["world"] != world or one["regime"] != REGIMES[world] or one["build"] not in COMPARED:
            continue
        if one["part"] in ("methods", "vine") or (one["part"], one["scorer"]) == ("contenders", "learned"):
            runs[one["method"]][one["build"]] = row
        elif (one["part"], one["scorer"]) == ("contenders", "oracle"):
            runs[CEILING][one["build"]] = row
    base = outcome_only(rows, world)
    gains = {method: gains_of(found, base) for method, found in runs.items()}
    return dict(sorted(gains.items(), key=lambda item: -_mean(list(item[1].values()))))


def methods_table(rows: list[Row]) -> str:
    """A line for each method, a column for each world: mean gain, builds above, * where p < .05 after Holm.

    Above them outcome-only's accuracy and what the learned PRM is worth. Holm is over the methods of a world; the
    ceiling is none of them.
    """
    by_world = {world: method_gains(rows, world) for world in WORLDS}
    adjusted = {}
    for world, gains in by_world.items():
        names = [name for name in gains if name != CEILING]
        adjusted[world] = dict(zip(names, holm_adjusted([_p(gains[name]) for name in names]), strict=True))
    everywhere = {name: [world[name] for world in by_world.values() if name in world] for name in by_world["plain"]}
    order = sorted(everywhere, key=lambda name: -_mean([_mean(list(one.values())) for one in everywhere[name]]))
    out = ["| | " + " | ".join(WORLDS) + " |", "|---|" + "---|" * len(WORLDS)]
    for name, value in (
        ("outcome-only, accuracy", lambda world: _mean([outcome_only(rows, world)[b]["accuracy"] for b in COMPARED])),
        ("learned PRM, first-error F1", lambda world: _measure(rows, world, "first_error_f1")),
        ("learned PRM, AUROC of the lowest score", lambda world: _measure(rows, world, "auroc_min")),
    ):
        out.append(f"| {name} | " + " | ".join(f"{value(world):.3f}" for world in WORLDS) + " |")
    for name in (CEILING, *(one for one in order if one != CEILING)):
        cells = [_method_cell(by_world[world].get(name), adjusted[world].get(name)) for world in WORLDS]
        out.append(f"| {name if name == CEILING else f'`{name}`'} | " + " | ".join(cells) + " |")
    return "\n".join(out)


def _method_cell(gains: dict[int, float] | None, p: float | None) -> str:
    if not gains:
        return "–"
    above = f"{sum(gain > 0 for gain in gains.values())}/{len(gains)}"
    return f"{_mean(list(gains.values())):+.3f}, {above}" + (" *" if p is not None and p < 0.05 else "")


def _measure(rows: list[Row], world: str, name: str) -> float:
    """The mean of one of preflight's measures of the learned PRM."""
    return _mean(
        [
            row["measures"][name]
            for row in rows
            if (row["cell"]["part"], row["cell"]["scorer"], row["cell"]["world"]) == ("contenders", "learned", world)
            and row["cell"]["regime"] == REGIMES[world]
            and row["cell"]["build"] in COMPARED
        ]
    )


def judge_table(rows: list[Row]) -> str:
    """Per world, scorer and method of ``judges``: first-error F1, and what an update asks of judge and policy."""
    judged = {row["cell"]["world"] for row in rows if row["cell"]["part"] == "judges"}
    runs: dict[tuple[str, str, str, int], list[Row]] = defaultdict(list)
    for row in rows:
        one = row["cell"]
        usual = one["part"] == "contenders" and one["regime"] == REGIMES[one["world"]]
        if one["part"] == "judges" or (usual and one["world"] in judged):
            runs[one["world"], one["scorer"], one["method"], Regime(**one["regime"]).max_steps].append(row)
    out = [
        "| world | scorer | method | updates | builds | accuracy | F1 | questions / update | tokens / update"
        " | policy tokens |"
    ]
    out.append("|---|---|---|---|---|---|---|---|---|---|")
    for (world, scorer, method, updates), found in sorted(runs.items()):
        spent = [row.get("judge", {}) for row in found]
        asked = [one.get("judge_calls", 0) / updates for one in spent]
        tokens = [
            (one.get("judge_prompt_tokens", 0) + one.get("judge_completion_tokens", 0)) / updates for one in spent
        ]
        f1 = [row["measures"]["first_error_f1"] for row in found if "measures" in row]
        cells = [
            world,
            scorer,
            method,
            str(updates),
            str(len(found)),
            f"{_mean([row['accuracy'] for row in found]):.3f}",
        ]
        cells += [f"{_mean(f1):.3f}" if f1 else "", f"{_mean(asked):.0f}", f"{_mean(tokens):,.0f}"]
        cells += [f"{_mean([row['generated_tokens'] for row in found]) / updates:,.0f}"]
        out.append("| " + " | ".join(cells) + " |")
    return "\n".join(out)


def longer_table(rows: list[Row]) -> str:
    """Accuracy at the usual and at six times the updates, each scorer beside outcome-only on the same builds."""
    out = ["| world | scorer | builds | usual updates | six times | outcome-only, six times | gain, six times |"]
    out.append("|---|---|---|---|---|---|---|")
    compared = {("none", "outcome"), ("learned", METHOD), ("oracle", METHOD)}
    for world in ("plain", "long"):
        runs: dict[tuple[str, bool], dict[int, float]] = defaultdict(dict)
        for row in rows:
            one = row["cell"]
            wanted = one["world"] == world and one["part"] in ("contenders", "judges", "longer")
            if wanted and (one["scorer"], one["method"]) in compared:
                for far, regime in ((False, REGIMES[world]), (True, longer_regime(world))):
                    if one["regime"] == regime:
                        runs[one["scorer"], far][one["build"]] = row["accuracy"]
        base = runs["none", True]
        for scorer in ("none", "learned", "oracle"):
            near, far = runs[scorer, False], runs[scorer, True]
            builds = sorted(near.keys() & far.keys() & base.keys())
            means = [_mean([one[build] for build in builds]) for one in (near, far, base)]
            cells = [world, scorer, str(len(builds)), *(f"{mean:.3f}" for mean in means)]
            gains = [far[build] - base[build] for build in builds]
            out.append("| " + " | ".join([*cells, _interval(gains) if scorer != "none" and builds else ""]) + " |")
    return "\n".join(out)


def forests(rows: list[Row]) -> dict[str, list[dict[str, Any]]]:
    """World → one entry for each method: its name, mean gain, the ends of the interval and the gain of each build."""
    return {
        world: [
            {"name": name, **difference_interval(list(gains.values()))._asdict(), "values": list(gains.values())}
            for name, gains in method_gains(rows, world).items()
        ]
        for world in WORLDS
    }


def _p(gains: dict[int, float]) -> float:
    return difference_p_value(list(gains.values())) if len(gains) > 1 else math.nan


def _interval(values: list[float]) -> str:
    found = difference_interval(values)
    return f"{found.mean:+.3f} ({found.low:+.3f} to {found.high:+.3f})"


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["show", "methods", "judges", "longer", "forests"])
    parser.add_argument("--builds", type=int, nargs="+", help="default: all that are there")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    rows = [row for row in rows_of(args.results) if not args.builds or row["cell"]["build"] in args.builds]
    if args.what == "show":
        print("\n\n".join(f"## {part}\n{part_table(rows, part)}" for part in PARTS))
    elif args.what == "methods":
        print(methods_table(rows))
    elif args.what == "judges":
        print(judge_table(rows))
    elif args.what == "longer":
        print(longer_table(rows))
    else:
        print(json.dumps(forests(rows), indent=1))


if __name__ == "__main__":
    main()
