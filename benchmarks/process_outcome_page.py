"""The tables of ``process_outcome.py`` and the page of them: means over builds beside the numbers of the paper."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from rlhf_prm.statistics import mean_interval, rank_correlation

Results = dict[tuple[int, str], dict]
SOURCES = (
    "outcome",
    "outcome 16k",
    "mc hard",
    "mc soft",
    "judge",
    "consensus hard",
    "consensus soft",
    "gold",
    "exact labels",
)
COLUMNS = {
    "label_accuracy": "labels right", "f1": "F1", "f1_tuned": "F1, tuned", "auroc": "step AUROC",
    "group_auroc": "answers by min", "last_auroc": "answers by last",
    "product": "product@8", "min": "min@8", "last": "last@8", "last_minus": "last − best other",
    "minimum_at_last": "min at last", "wrong_process_found": "Table 5",
}  # fmt: skip
TUNING = 20  # the build that the settings were chosen on: in no table but that of the probes
FEWEST = 5  # builds below which nothing is decided
THRESHOLDS = [k / 8 for k in range(8)]
PAPER_THRESHOLDS = {"product": (65.5, 65.3, 65.0, 64.8, 64.9, 64.5, 64.6, 64.4),
                    "f1": (40.2, 40.2, 39.0, 37.9, 36.6, 35.6, 33.6, 29.5)}  # fmt: skip
# measure, the sources in the order that the paper finds (lowest first), and its numbers
ORDERINGS: tuple[tuple[str, tuple[str, str], str], ...] = (
    ("f1", ("mc hard", "judge"), "40.1 < 46.5"),
    ("f1", ("mc hard", "consensus hard"), "40.1 < 46.3"),
    ("f1", ("consensus hard", "gold"), "46.3 < 56.5 (human)"),
    ("f1", ("mc hard", "gold"), "40.1 < 56.5 (human)"),
    ("f1", ("outcome 16k", "mc hard"), "38.9 (its 72B) < 40.1"),
    ("last_minus", ("gold", "outcome"), "its premise: an outcome model shows in its last score"),
    ("last_minus", ("mc hard", "outcome"), "no number"),
    ("product", ("gold", "mc hard"), "64.9 (human) < 65.9"),
    ("product", ("gold", "judge"), "64.9 (human) < 65.3"),
    ("product", ("judge", "consensus hard"), "65.3 < 65.7"),
    ("product", ("consensus hard", "mc hard"), "65.7 < 65.9"),
    ("f1", ("mc soft", "mc hard"), "level: 40.2 both"),
    ("f1_tuned", ("mc soft", "mc hard"), "level: 40.2 both"),
    ("f1", ("consensus soft", "consensus hard"), "49.3 < 66.5 (1.5M)"),
    ("f1_tuned", ("consensus soft", "consensus hard"), "49.3 < 66.5 (1.5M)"),
    ("product", ("consensus soft", "consensus hard"), "65.4 < 67.2 (1.5M)"),
    ("last_minus", ("gold", "mc hard"), "−0.9 (human) < +0.8"),
    ("last_minus", ("judge", "mc hard"), "−0.3 < +0.8"),
    ("wrong_process_found", ("mc hard", "judge"), "22.2 < 26.2"),
    ("wrong_process_found", ("mc hard", "consensus hard"), "22.2 < 53.9 (its own)"),
    ("minimum_at_last", ("consensus hard", "mc hard"), "17.5 (its own) < 44.5 (Math-Shepherd), but RLHFlow 9.1"),
)
PROBE_COLUMNS = {
    "answers": "answers", "auroc_length": "… too short", "auroc_fact": "… a wrong fact",
    "auroc_copy": "… a wrong copy", "f1": "F1", "last": "last@8", "min": "min@8",
}  # fmt: skip
LADDER = ("mc hard", "consensus hard", "judge", "gold")  # 860k-scale rows of the paper: F1 rises, best-of-8 falls


def complete(results: Results, sources: Sequence[str]) -> list[int]:
    """The builds that have all of these cells, without the one that the settings were chosen on."""
    builds = sorted({build for build, _ in results} - {TUNING})
    return [build for build in builds if all((build, source) in results for source in sources)]


def tables(results: Results) -> str:
    """All tables, of the builds that are complete for each."""
    parts = [sources_table(results), orderings_table(results), thresholds_table(results), search_table(results)]
    return "\n\n".join(part for part in parts if part) or "no build is complete yet: run the benchmark first"


def _mean(values: Sequence[float]) -> str:
    known = [value for value in values if value is not None]
    text = f"{np.mean(known):.3f}".replace("-", "−") if known else "–"
    if len(known) < 2:
        return text
    return f"{text} ± {np.std(known, ddof=1) / len(known) ** 0.5:.3f}"


def sources_table(results: Results) -> str:
    """One row per label source: means ± standard errors over the builds. Sources with fewer builds are left out."""
    counts = {source: len(complete(results, [source])) for source in SOURCES}
    present = [source for source, count in counts.items() if count == max(counts.values()) > 0]
    builds = complete(results, present)
    if not builds:
        return ""
    lines = ["| trained on | " + " | ".join(COLUMNS.values()) + " |", "|---|" + "---|" * len(COLUMNS)]
    for source in present:
        rows = [results[build, source] for build in builds]
        lines.append(f"| {source} | " + " | ".join(_mean([row.get(name) for row in rows]) for name in COLUMNS) + " |")
    first = [results[build, present[0]] for build in builds]
    known = " · ".join(f"{name} {_mean([row[key] for row in first])}" for name, key in POLICY.items())
    few = " **Fewer than five builds have been run: these numbers are an example, not a finding.**"
    few *= len(builds) < FEWEST
    return f"Builds {', '.join(map(str, builds))}.{few} The policy's samples: {known}.\n\n" + "\n".join(lines)


POLICY = {"mean@1": "mean@1", "maj@8": "maj", "pass@8": "pass"}


def orderings_table(results: Results) -> str:
    """In how many builds each of the paper's orderings holds, and the trend between F1 and best-of-8."""
    lines = ["| measure | here | holds in | mean difference (95 % interval) | appears | paper |", "|---" * 6 + "|"]
    for name, (low, high), paper in ORDERINGS:
        builds = complete(results, (low, high))
        if builds:
            gaps = [results[build, high][name] - results[build, low][name] for build in builds]
            interval = mean_interval(gaps)
            around = f"{interval.low:+.3f} to {interval.high:+.3f}" if len(gaps) > 1 else "one build"
            told = f"{interval.mean:+.3f} ({around})".replace("-", "−")
            held = f"{sum(gap > 0 for gap in gaps)} of {len(gaps)}"
            lines.append(f"| {COLUMNS[name]} | {low} < {high} | {held} | {told} | {appears(gaps)} | {paper} |")
    if builds := complete(results, LADDER):
        rhos = [trend([results[build, source] for source in LADDER]) for build in builds]
        lines.append(
            f"| F1 against product@8 | rank correlation over {', '.join(LADDER)} | below 0 in "
            f"{sum(rho < 0 for rho in rhos)} of {len(rhos)} | {_mean(rhos)} | {appears([-rho for rho in rhos])} "
            "| −1 (the inverse trend) |"
        )
    return "\n".join(lines) if len(lines) > 2 else ""


def appears(gaps: Sequence[float]) -> str:
    """Whether an ordering appears: the 95 % interval of its mean difference over the builds lies on one side of 0."""
    if len(gaps) < FEWEST:
        return "too few builds"
    interval = mean_interval(gaps)
    return "**yes**" if interval.low > 0 else "**reversed**" if interval.high < 0 else "not decided"


def probes_table(rows: Sequence[dict]) -> str:
    """What the outcome model learned of the kinds of error, by probe."""
    if not rows:
        return ""
    lines = [f"| build {TUNING} | {' | '.join(PROBE_COLUMNS.values())} |", "|---" * (len(PROBE_COLUMNS) + 1) + "|"]
    lines += [f"| {row['probe']} | {' | '.join(_mean([row[name]]) for name in PROBE_COLUMNS)} |" for row in rows]
    return "\n".join(lines)


def trend(rows: Sequence[dict]) -> float:
    """Spearman's ρ of first-error F1 and best-of-8 by the product, over the label sources of one build."""
    return rank_correlation([row["f1"] for row in rows], [row["product"] for row in rows])


def thresholds_table(results: Results) -> str:
    """F1 and best-of-8 of hard Monte-Carlo labels over the threshold, here and in the paper."""
    sources = ["mc hard", *(f"mc hard >{threshold:g}" for threshold in THRESHOLDS[1:])]
    builds = complete(results, sources)
    if not builds:
        return ""
    head = ["0", *(f"{k}/8" for k in range(1, 8))]
    lines = [f"| builds {', '.join(map(str, builds))} | " + " | ".join(head) + " |", "|---|" + "---|" * 8]
    for name in ("f1", "product"):
        values = [[results[build, source][name] for build in builds] for source in sources]
        falls = sum(np.mean(after) < np.mean(before) for before, after in pairwise(values))
        cells = " | ".join(f"{np.mean(value):.3f}" for value in values)
        lines.append(f"| {COLUMNS[name]}, falls at {falls} of 7 | {cells} |")
        lines.append(f"| the same in the paper | {' | '.join(map(str, PAPER_THRESHOLDS[name]))} |")
    return "\n".join(lines)


def search_table(results: Results) -> str:
    """Accuracy and tokens of each search, and of best-of-n at its tokens."""
    builds = complete(results, ("search",))
    if not builds:
        return ""
    methods = list(results[builds[0], "search"]["methods"])
    lines = [f"| builds {', '.join(map(str, builds))} | accuracy | tokens a problem |", "|---|---|---|"]
    for method in methods:
        rows = [results[build, "search"]["methods"][method] for build in builds]
        tokens = np.mean([row["tokens"] for row in rows])
        lines.append(f"| {method} | {_mean([row['accuracy'] for row in rows])} | {tokens:.0f} |")
    return "\n".join(lines)


def page(results: Results, probes: Sequence[dict] = ()) -> str:
    """``docs/process_outcome.md``: one screen."""
    chance = _mean([row["mean@1"] for row in probes[:1]])
    return f"""# Judges of steps and judges of outcomes

Written by `python benchmarks/process_outcome.py page` from `benchmarks/results/process_outcome.jsonl`, one line a cell,
with its build (the seed of everything in it). In each toy world a policy that is right in about 60 % solves 2,000
problems, eight completions are drawn from every step, and each model learns from the same solutions with equal
settings, chosen on build {TUNING}, which is in no mean. They are measured on 8 samples of 300 held-out problems with
exact first errors. "F1" has the threshold .5, "F1, tuned" the best one of 100 of the problems. "Answers by min" and "by
last" are AUROCs of a solution's lowest and last score, right answers against wrong ones to the same problem. "Last −
best other" is best-of-8 by the last score minus the better of product and min, "min at last" the share of solutions
whose lowest score is the last, "Table 5" that of right answers with a wrong process whose first error is named exactly.
± is the standard error over builds.

We made the judge wrong in only 2 % of its verdicts, so that its labels are better than Monte-Carlo labels, as in the
paper. That ordering is therefore our assumption, not a result. What follows for F1, best-of-8 and Table 5 is measured.
"Consensus" keeps three in four of the solutions; its model hardly learned on build 24 (F1 .23), and that build stays in
the means. All had 400 updates and most were best at the last of them, so they had not learned all that these solutions
teach.

{sources_table(results) or "No build is complete yet."}

## The paper's orderings (arXiv 2501.07301)
"Appears" says yes or reversed where the 95 % interval over at least {FEWEST} builds lies on one side of 0.

{orderings_table(results) or "Not run yet."}

## What an outcome model learns
One verdict a solution is little: the first thing learned from it is that a solution which is too short is wrong. Wrong
facts take 16,000 verdicts. Operations copied wrongly are hardly seen by any model here, those from exact labels
included, and they are what best-of-8 then chooses: by the product no model is clearly above mean@1, and the orderings
of best-of-8 say little. Measured by `benchmarks/outcome_probes.py`: how often the last score (last line: the lowest)
ranks a right answer above a wrong one, of all wrong ones and of those wrong in one way only. Mean@1 is {chance}.

{probes_table(probes) or "Not run yet."}

## Thresholds of Monte-Carlo labels
A step is right above this share of hits; relabelled from the stored hits, nothing is sampled again.

{thresholds_table(results) or "Not run yet."}

## Search guided by the consensus PRM
Eight candidates at each depth; best-of-n has the same tokens on each problem.

{search_table(results) or "Not run yet."}
"""
