"""Does the preflight's verdict agree with what reinforcement learning then gained? Fits its limits on some builds of
the toy world and counts hits and misses on the others.

    python benchmarks/preflight_validation.py pairs.json                # every second build is held out
    python benchmarks/preflight_validation.py new_pairs.json --margin 0 --as-it-stands
    python benchmarks/preflight_validation.py pairs.json --fit-builds 0 1 2 3 --test-builds 4 5 6 7 --write

``pairs.json`` is a list of
{"measures": {...}, "gain": float, "gain_se": float, "world": str, "build": int, "prm": str}: the measures of
``rlhf_prm.preflight.measures.preflight_measures`` before training, and how much more accurate the dense method then
ended than outcome-only, with its standard error. A pair is of the class *pay* where gain − 2·se > .02, *harm* where
gain + 2·se < −.02, otherwise *not to matter* (``--margin``, ``--errors``).

The rule is at most two conditions for *pay* and at most two for *harm*, each ``measure ≥ limit`` or ``≤ limit`` in the
direction that makes sense. Which measures: those with the fewest errors on builds left out one at a time, among the fit
builds only. Which limits: those with the fewest errors on the fit builds; of equal ones, those with the most room.
Printed: how each measure ranks the gains; the rule, to be put into ``rlhf_prm/preflight/verdict.py``; the confusion
table on the held-out builds; and one in which every build is held out in turn and the whole fit repeated without it.
"""

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from itertools import combinations
from pathlib import Path

import numpy as np
from methods import RESULTS, hardware

from rlhf_prm.preflight.verdict import KINDS, RULE, Condition, VerdictRule
from rlhf_prm.statistics import rank_correlation, share_interval

CLASSES = KINDS[:3]
# (measure, at least): what may become a condition. Measures that need step labels are left out: a user has none.
PAY_CANDIDATES = (
    ("rho", True), ("rho_mixed", True), ("auroc_credit", True), ("auroc_same_position", True), ("auroc_min", True),
    ("auroc_mean", True), ("headroom_used", True), ("credit_size", True), ("accuracy", False),
    ("all_right_share", False), ("all_wrong_share", True), ("credit_with_steps", False), ("approval_lift", True),
)  # fmt: skip
HARM_CANDIDATES = (
    ("rho", False), ("rho_mixed", False), ("auroc_credit", False), ("auroc_same_position", False),
    ("auroc_min", False), ("auroc_mean", False), ("headroom_used", False), ("credit_size", True), ("accuracy", True),
    ("credit_with_steps", True), ("score_with_steps", True), ("approval_lift", False),
)  # fmt: skip
Measure = tuple[str, bool]


@dataclass(frozen=True)
class Pair:
    """A world and a PRM: what was measured before, and what training on the PRM gained over outcome-only."""

    measures: dict[str, float | None]
    gain: float
    gain_se: float
    world: str
    build: int
    prm: str


def load_pairs(path: Path) -> list[Pair]:
    """The pairs of a JSON file.

    Raises:
        ValueError: no list of objects with exactly the fields of :class:`Pair`; the message names the row.
    """
    rows = json.loads(path.read_text())
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"{path}: expected a list of at least one pair, got {type(rows).__name__}")
    for number, row in enumerate(rows, start=1):
        wanted = set(Pair.__dataclass_fields__)
        if not isinstance(row, dict) or not wanted <= set(row):
            raise ValueError(f"{path}, pair {number}: got {row!r:.80}, expected the fields {', '.join(sorted(wanted))}")
        if any(not math.isfinite(row[name]) for name in ("gain", "gain_se")):
            raise ValueError(f"{path}, pair {number}: gain {row['gain']} and gain_se {row['gain_se']} must be numbers")
    return [Pair(**{name: row[name] for name in Pair.__dataclass_fields__}) for row in rows]


def gain_class(pair: Pair, margin: float = 0.02, errors: float = 2.0) -> str:
    """pay, harm, or not to matter, by the measured gain and its standard error."""
    if pair.gain - errors * pair.gain_se > margin:
        return "pay"
    return "harm" if pair.gain + errors * pair.gain_se < -margin else "not to matter"


def column(pairs: Sequence[Pair], measure: str) -> np.ndarray:
    """A measure of every pair; NaN where it is unknown."""
    values = [pair.measures.get(measure) for pair in pairs]
    return np.array([math.nan if value is None else value for value in values])


def fit_limits(pairs: Sequence[Pair], wanted: np.ndarray, measures: Sequence[Measure]) -> tuple[Condition, ...]:
    """Conditions on these one or two measures that together hold for the wanted pairs with the fewest errors."""
    columns = [column(pairs, name) for name, _ in measures]
    options = [_limits(values) for values in columns]
    held, room = np.ones((1, len(pairs)), dtype=bool), np.full(1, np.inf)  # every combination of limits so far
    for (_, at_least), values, (limits, rooms) in zip(measures, columns, options, strict=True):
        with np.errstate(invalid="ignore"):
            one = values >= limits[:, None] if at_least else values <= limits[:, None]
        held = (held[:, None] & one[None]).reshape(-1, len(pairs))
        room = np.minimum(room[:, None], rooms[None]).ravel()
    best = int(np.lexsort((-room, (held != wanted).sum(1)))[0])
    indices = np.unravel_index(best, [len(limits) for limits, _ in options])
    return tuple(
        Condition(name, float(limits[index]), at_least)
        for (name, at_least), (limits, _), index in zip(measures, options, indices, strict=True)
    )


def _limits(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The middles between neighbouring values, and their distance to those in standard deviations."""
    known = np.unique(values[~np.isnan(values)])
    if len(known) < 2:
        return (known if len(known) else np.zeros(1)), np.zeros(1)
    return (known[:-1] + known[1:]) / 2, np.diff(known) / 2 / known.std()


def holding(conditions: Sequence[Condition], pairs: Sequence[Pair]) -> np.ndarray:
    """For each pair whether all conditions hold; an unknown measure does not."""
    held = np.full(len(pairs), bool(conditions))
    for condition in conditions:
        values = column(pairs, condition.measure)
        with np.errstate(invalid="ignore"):
            held &= values >= condition.limit if condition.at_least else values <= condition.limit
    return held


def fit_conditions(
    pairs: Sequence[Pair], wanted: np.ndarray, candidates: Sequence[Measure], most: int = 2
) -> tuple[Condition, ...]:
    """At most ``most`` conditions: the measures by errors on left-out builds, then their limits on all pairs.

    Of measures with equal errors the fewest are taken, then those that fit all pairs best, then the first in the list.
    """
    if not wanted.any():
        return ()
    structures = [()] + [s for size in range(1, most + 1) for s in combinations(candidates, size)]
    known = [s for s in structures if not any(np.isnan(column(pairs, name)).all() for name, _ in s)]
    fits = {s: fit_limits(pairs, wanted, s) if s else () for s in known}

    def key(structure: tuple[Measure, ...]) -> tuple[int, int, int]:
        errors = int((holding(fits[structure], pairs) != wanted).sum())
        return _errors_left_out(pairs, wanted, structure), len(structure), errors

    return fits[min(known, key=key)]


def _errors_left_out(pairs: Sequence[Pair], wanted: np.ndarray, structure: tuple[Measure, ...]) -> int:
    """Errors on each build of limits fitted to the others; with one build alone, on itself."""
    builds = np.array([pair.build for pair in pairs])
    if not structure or len(set(builds)) == 1:
        conditions = fit_limits(pairs, wanted, structure) if structure else ()
        return int((holding(conditions, pairs) != wanted).sum())
    errors = 0
    for build in sorted(set(builds)):
        inside, outside = np.flatnonzero(builds != build), np.flatnonzero(builds == build)
        conditions = fit_limits([pairs[i] for i in inside], wanted[inside], structure)
        errors += int((holding(conditions, [pairs[i] for i in outside]) != wanted[outside]).sum())
    return errors


def fit_rule(pairs: Sequence[Pair], classes: Sequence[str], origin: str = "") -> VerdictRule:
    """The rule that tells the classes of these pairs apart."""
    pays, harms = (np.array([one == name for one in classes]) for name in ("pay", "harm"))
    return replace(
        RULE,
        pay=fit_conditions(pairs, pays, PAY_CANDIDATES),
        harm=fit_conditions(pairs, harms, HARM_CANDIDATES),
        origin=origin,
    )


def confusion(classes: Sequence[str], said: Sequence[str]) -> dict[str, dict[str, int]]:
    """{class by the measured gain: {verdict: pairs}}."""
    counts = Counter(zip(classes, said, strict=True))
    return {true: {kind: counts[true, kind] for kind in KINDS} for true in CLASSES}


def agreement(table: dict[str, dict[str, int]]) -> dict[str, float]:
    """Share of pairs whose verdict is their class, with Wilson's interval; what always saying the most common class
    would reach; and Cohen's κ: (agreement − expected by chance)/(1 − expected)."""
    total = sum(map(sum, (row.values() for row in table.values())))
    hits = sum(table[name][name] for name in CLASSES)
    share, low, high = share_interval(hits, total)
    truths = {name: sum(table[name].values()) for name in CLASSES}
    said = {name: sum(row[name] for row in table.values()) for name in CLASSES}
    chance = sum(truths[name] * said[name] for name in CLASSES) / total**2 if total else math.nan
    kappa = (share - chance) / (1 - chance) if chance < 1 else math.nan
    common = max(truths.values()) / total if total else math.nan
    return {"pairs": total, "agreement": share, "low": low, "high": high, "most_common_class": common, "kappa": kappa}


def left_out_verdicts(pairs: Sequence[Pair], classes: Sequence[str]) -> list[str]:
    """The verdict on every pair by a rule that was fitted, measures and limits, without its build."""
    said: list[str] = [""] * len(pairs)
    for build in sorted({pair.build for pair in pairs}):
        inside = [i for i, pair in enumerate(pairs) if pair.build != build]
        rule = fit_rule([pairs[i] for i in inside], [classes[i] for i in inside])
        for i, pair in enumerate(pairs):
            if pair.build == build:
                said[i] = rule.kind(pair.measures)
    return said


def predictors(pairs: Sequence[Pair]) -> list[dict[str, float | str]]:
    """Spearman's correlation of every measure with the gain: over all pairs, and the mean over worlds of that within
    each (which leaves out how worlds differ); the strongest first."""
    names = sorted({n for pair in pairs for n in pair.measures if not n.endswith("_se")})
    gains, worlds = np.array([pair.gain for pair in pairs]), np.array([pair.world for pair in pairs])
    rows = []
    for name in names:
        values = column(pairs, name)
        inside = [_spearman(values[worlds == world], gains[worlds == world]) for world in sorted(set(worlds))]
        known = [rho for rho in inside if not math.isnan(rho)]
        within = float(np.mean(known)) if known else math.nan
        overall = _spearman(values, gains)
        if not math.isnan(overall):
            rows.append(
                {"measure": name, "all": overall, "within_worlds": within, "pairs": int((~np.isnan(values)).sum())}
            )
    return sorted(rows, key=lambda row: -abs(row["all"]))


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    kept = ~np.isnan(x)
    return rank_correlation(x[kept], y[kept])


def validate(
    pairs: list[Pair], fit_builds: Sequence[int], test_builds: Sequence[int], margin: float, errors: float
) -> dict:
    """The rule fitted on some builds, its confusion table on others, and the one with every build left out in turn.

    Raises:
        ValueError: a build in both lists, or a list without pairs.
    """
    if both := sorted(set(fit_builds) & set(test_builds)):
        raise ValueError(f"builds {both} are both fitted and held out: expected each in one list")
    classes = [gain_class(pair, margin, errors) for pair in pairs]
    parts = [[i for i, pair in enumerate(pairs) if pair.build in builds] for builds in (fit_builds, test_builds)]
    if not all(parts):
        raise ValueError(
            f"got no pair for the builds {list(fit_builds if not parts[0] else test_builds)}; the file has the builds "
            f"{sorted({pair.build for pair in pairs})}"
        )
    fit, test = parts
    origin = (
        f"fitted by benchmarks/preflight_validation.py to {len(fit)} pairs of the toy world's builds "
        f"{', '.join(map(str, sorted(set(fit_builds))))}"
    )
    rule = fit_rule([pairs[i] for i in fit], [classes[i] for i in fit], origin)
    tables = {
        "fitted": confusion([classes[i] for i in fit], [rule.kind(pairs[i].measures) for i in fit]),
        "held out": confusion([classes[i] for i in test], [rule.kind(pairs[i].measures) for i in test]),
        "every build left out in turn": confusion(classes, left_out_verdicts(pairs, classes)),
    }
    return {
        "margin": margin,
        "errors": errors,
        "fit_builds": sorted(set(fit_builds)),
        "test_builds": sorted(set(test_builds)),
        "rule": asdict(rule),
        "tables": tables,
        "agreement": {name: agreement(table) for name, table in tables.items()},
        "predictors": predictors(pairs),
    }


def markdown(results: dict) -> str:
    """The tables as they go into docs/preflight.md."""
    lines = []
    for name, table in results["tables"].items():
        agreed = results["agreement"][name]
        lines += [
            f"{name}: {100 * agreed['agreement']:.0f} % of {agreed['pairs']} pairs agree (95 % interval "
            f"{100 * agreed['low']:.0f}–{100 * agreed['high']:.0f} %), always the most common class "
            f"{100 * agreed['most_common_class']:.0f} %, κ {agreed['kappa']:.2f}",
            "",
            "| measured gain | " + " | ".join(f"said: {kind}" for kind in KINDS) + " |",
            "|---|" + "---|" * len(KINDS),
            *(f"| {true} | " + " | ".join(str(row[kind]) for kind in KINDS) + " |" for true, row in table.items()),
            "",
        ]
    lines += ["| measure | Spearman with gain | within worlds | pairs |", "|---|---|---|---|"]
    lines += [
        f"| `{row['measure']}` | {row['all']:.2f} | {row['within_worlds']:.2f} | {row['pairs']} |"
        for row in results["predictors"]
    ]
    return "\n".join(lines)


def as_it_stands(pairs: list[Pair], margin: float, errors: float) -> str:
    """How often the shipped rule is right on these pairs, all of them and by world, and where it is not."""
    lines = []
    for world in ("", *sorted({pair.world for pair in pairs})):
        chosen = [pair for pair in pairs if world in ("", pair.world)]
        classes = [gain_class(pair, margin, errors) for pair in chosen]
        agreed = agreement(confusion(classes, [RULE.kind(pair.measures) for pair in chosen]))
        lines.append(
            f"{world or 'all'}: {100 * agreed['agreement']:.0f} % of {agreed['pairs']} pairs agree (95 % interval "
            f"{100 * agreed['low']:.0f}–{100 * agreed['high']:.0f} %), always the most common class "
            f"{100 * agreed['most_common_class']:.0f} %"
        )
    for pair in pairs:
        said, found = RULE.kind(pair.measures), gain_class(pair, margin, errors)
        if said != found:
            gained = f"gained {pair.gain:+.3f} ± {pair.gain_se:.3f}"
            lines.append(f"{pair.world}, build {pair.build}, {pair.prm}: said {said}, {gained} ({found})")
    return "\n".join(lines)


def rule_text(rule: dict) -> str:
    """The fitted constants as they go into rlhf_prm/preflight/verdict.py."""

    def conditions(rows: Sequence[dict]) -> str:
        return "".join(f"Condition({r['measure']!r}, {r['limit']:.4g}, at_least={r['at_least']}), " for r in rows)

    return (
        f"RULE = VerdictRule(\n    pay=({conditions(rule['pay'])}),\n    harm=({conditions(rule['harm'])}),\n"
        f"    origin={rule['origin']!r},\n)"
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--fit-builds", type=int, nargs="+", help="default: every second build, from the lowest")
    parser.add_argument("--test-builds", type=int, nargs="+", help="default: all the others")
    parser.add_argument("--margin", type=float, default=0.02, help="smallest gain that matters")
    parser.add_argument("--errors", type=float, default=2.0, help="standard errors a gain must lie beyond the margin")
    parser.add_argument("--as-it-stands", action="store_true", help="fit nothing: the shipped rule on all these pairs")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/preflight_validation.json")
    args = parser.parse_args(argv)
    try:
        pairs = load_pairs(args.pairs)
        if args.as_it_stands:
            print(as_it_stands(pairs, args.margin, args.errors))
            return
        builds = sorted({pair.build for pair in pairs})
        fit = args.fit_builds or [b for b in builds[::2] if b not in (args.test_builds or ())]
        test = args.test_builds or [build for build in builds if build not in fit]
        results = validate(pairs, fit, test, args.margin, args.errors)
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(markdown(results) + "\n\n" + rule_text(results["rule"]))
    if args.write:
        origin = {"date": str(date.today()), "hardware": hardware(), "pairs": [asdict(pair) for pair in pairs]}
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "preflight_validation.json").write_text(json.dumps(results | origin, indent=1) + "\n")


if __name__ == "__main__":
    main()
