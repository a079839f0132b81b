"""The charts of the page, each a function of the subjects shown together (a run and its baseline, or several runs)."""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rlhf_prm.report.drawing import Limit, bar_chart, histogram, line_chart, path_chart
from rlhf_prm.report.plot_parts import Chart, Series
from rlhf_prm.report.runs import Run
from rlhf_prm.report.sampling import POSITIONS, SCORE_BINS, Gathered
from rlhf_prm.statistics import Interval, mean_interval, share_interval

POINTS, PATH_POINTS, GROUPS_PER_POINT = 40, 12, 16
Curve = dict[float, Interval]


@dataclass(frozen=True)
class Subject:
    """One curve of the page. Subjects with the same label are seeds of one thing and are averaged."""

    label: str
    style: int  # of its method: see ``report.styles``
    run: Run
    gathered: Gathered


def logged(run: Run, name: str) -> Curve:
    """A metric over updates as it was logged, without intervals."""
    rows = ((row.get("step"), row.get(name)) for row in run.metrics)
    return {
        float(step): Interval(float(value), math.nan, math.nan)
        for step, value in rows
        if step is not None and isinstance(value, int | float) and math.isfinite(value)
    }


def evaluated(run: Run, name: str) -> Curve:
    """Held-out ``accuracy`` or ``process_accuracy``: logged evaluations, and before and after from the summary."""
    curve = {x: point.mean for x, point in logged(run, f"eval/{name}").items()}
    counts = dict.fromkeys(curve, run.problems_on_the_way)
    told = run.summary.get(name) or {}
    last = max([float(row["step"]) for row in run.metrics if "step" in row], default=0.0)
    for x, when in ((0.0, "before"), (last, "after")):
        if told.get(when) is not None:
            curve[x], counts[x] = float(told[when]), run.eval_problems
    return {x: point_of_share(y, counts.get(x, run.eval_problems)) for x, y in sorted(curve.items())}


def point_of_share(share: float, total: int) -> Interval:
    """A share, with Wilson's interval if the total is known."""
    return share_interval(share * total, total) if total else Interval(share, math.nan, math.nan)


def over_groups(gathered: Gathered, part: str, points: int = POINTS) -> Curve:
    """A number per group (``group_outcomes`` or ``group_scores``), averaged over neighbouring updates.

    At most ``points`` points, each of at least ``GROUPS_PER_POINT`` groups while there are four points or more. The
    interval is over groups, not rollouts: the rollouts of one prompt are not independent.
    """
    groups = sum(len(batch.group_outcomes) for batch in gathered.batches)
    points = min(points, max(4, groups // GROUPS_PER_POINT))
    width = max(1, math.ceil(len(gathered.batches) / points))
    curve = {}
    for start in range(0, len(gathered.batches), width):
        batches = gathered.batches[start : start + width]
        values = [value for batch in batches for value in getattr(batch, part) if not math.isnan(value)]
        if values:
            curve[sum(batch.update for batch in batches) / len(batches)] = mean_interval(values)
    return curve


def thinned(curve: Curve) -> Curve:
    """At most ``POINTS`` points of a logged metric: means of neighbours."""
    width = math.ceil(len(curve) / POINTS)
    if width <= 1:
        return curve
    items = sorted(curve.items())
    chunks = [items[i : i + width] for i in range(0, len(items), width)]
    return {
        sum(x for x, _ in chunk) / len(chunk): Interval(
            sum(point.mean for _, point in chunk) / len(chunk), math.nan, math.nan
        )
        for chunk in chunks
    }


def lines(subjects: Sequence[Subject], curve_of: Callable[[Subject], Curve]) -> list[Series]:
    """One series a label; where several seeds share a label, their mean with a t interval over the seeds.

    Where all values are shares, intervals end at 0 and 1: Student's t knows nothing of those bounds.
    """
    seeds: dict[tuple[str, int], list[Curve]] = defaultdict(list)
    for subject in subjects:
        if curve := curve_of(subject):
            seeds[subject.label, subject.style].append(curve)
    series = []
    for (label, style), curves in seeds.items():
        curve = curves[0] if len(curves) == 1 else _mean_curve(curves)
        curve = bounded(curve)
        xs = sorted(curve)
        low, high = [curve[x].low for x in xs], [curve[x].high for x in xs]
        known = any(math.isfinite(value) for value in low)
        name = label if len(curves) == 1 else f"{label} ({len(curves)} seeds)"
        series.append(Series(name, xs, [curve[x].mean for x in xs], low if known else (), high if known else (), style))
    return series


def bounded(curve: Curve) -> Curve:
    """The curve, its intervals cut to [0, 1] where every value is a share."""
    if not all(0.0 <= point.mean <= 1.0 for point in curve.values()):
        return curve
    # in this order NaN, which is no interval, stays NaN
    return {x: Interval(p.mean, max(p.low, 0.0), min(p.high, 1.0)) for x, p in curve.items()}


def _mean_curve(curves: Sequence[Curve]) -> Curve:
    shared = set.intersection(*(set(curve) for curve in curves))
    return {x: mean_interval([curve[x].mean for curve in curves]) for x in shared}


def learning_charts(subjects: Sequence[Subject]) -> list[Chart]:
    """Accuracy on held-out problems and in training; the share with every step right."""
    title = "share of problems"
    charts = [
        line_chart(lines(subjects, lambda s: evaluated(s.run, "accuracy")), "Held-out accuracy", y_label=title),
        line_chart(
            lines(subjects, lambda s: evaluated(s.run, "process_accuracy")),
            "Held-out solutions with every step right",
            y_label=title,
        ),
        line_chart(
            lines(subjects, lambda s: over_groups(s.gathered, "group_outcomes")),
            "Outcome reward of training rollouts",
            y_label="mean outcome",
        ),
    ]
    return _drawn(charts)


def reward_charts(subjects: Sequence[Subject]) -> list[Chart]:
    """The parts of the reward, and the policy's steps and lengths."""
    wanted = {
        "process/step_score/mean": ("Mean step score", "step score"),
        "process/step_score/min": ("Lowest step score of a rollout", "step score"),
        "process/token_score/mean": ("Mean token score", "token score"),
        "process/token_score/abs_max": ("Largest token score, either sign", "token score"),
        "prm/implicit_accuracy": ("Share of verdicts that the implicit PRM foretold", "share"),
        "process/num_steps/mean": ("Steps per rollout", "steps"),
        "completions/mean_length": ("Tokens per rollout", "tokens"),
        "reward": ("Total reward as TRL logs it", "reward"),
        "advantage/frac_zero": ("Share of rollouts without a signal", "share"),
    }
    names = {name for s in subjects for row in s.run.metrics for name in row if name.startswith("rewards/")}
    wanted |= {name: (f"Reward part {name[8:-5]}", "reward") for name in sorted(names) if name.endswith("/mean")}
    charts = [metric_chart(subjects, name, title, label) for name, (title, label) in wanted.items()]
    return _drawn(charts)


def metric_chart(
    subjects: Sequence[Subject],
    name: str,
    title: str,
    y_label: str,
    marks: Sequence[tuple[float, str]] = (),
    limits: Sequence[Limit] = (),
) -> Chart:
    """One logged metric over updates."""
    series = lines(subjects, lambda s: thinned(logged(s.run, name)))
    return line_chart(series, title, y_label=y_label, marks=marks, limits=limits)


def process_charts(subjects: Sequence[Subject]) -> list[Chart]:
    """Process against outcome: as a path, and how well step scores predict the verdict."""
    with_scores = [s for s in subjects if any(s.gathered.mean_scores.values())]
    series, labels = [], []
    for s in with_scores:
        outcome, score = (over_groups(s.gathered, part, PATH_POINTS) for part in ("group_outcomes", "group_scores"))
        xs = sorted(set(outcome) & set(score))
        series.append(Series(s.label, [outcome[x].mean for x in xs], [score[x].mean for x in xs], style=s.style))
        labels.append([f"update {x:.0f}" for x in xs])
    note = (
        "Each point is a stretch of updates: right is more correct answers, up is higher step scores. A path that"
        " climbs without going right is a policy that pleases the PRM and not the verifier. Hollow: start. Large: end."
    )
    charts = []
    if any(len(s.x) for s in series):
        charts.append(path_chart(series, labels, "Process against outcome", "mean outcome", "mean step score", note))
    charts.append(
        metric_chart(subjects, "process/auroc", "AUROC of the lowest step score against the verifier", "AUROC")
    )
    return _drawn(charts)


def score_charts(subject: Subject) -> list[Chart]:
    """Score against relative position, and by correctness, over all rollouts of one run."""
    gathered = subject.gathered
    if not any(gathered.mean_scores.values()):
        return []
    by_position, shares = [], []
    for right, name, style in ((True, "correct", "good"), (False, "incorrect", "bad")):
        points = {(i + 0.5) / POSITIONS: mean_interval(v) for i, v in enumerate(gathered.by_position[right])}
        kept = list(bounded({x: point for x, point in points.items() if math.isfinite(point.mean)}).items())
        by_position.append(
            Series(
                name,
                [x for x, _ in kept],
                [p.mean for _, p in kept],
                [p.low for _, p in kept],
                [p.high for _, p in kept],
                style,
            )
        )
        counts = [0] * SCORE_BINS
        for score in gathered.mean_scores[right]:
            counts[min(SCORE_BINS - 1, max(0, int(score * SCORE_BINS)))] += 1
        total = sum(counts) or 1
        shares.append(Series(name, [], [count / total for count in counts], style=style))
    right, wrong = (gathered.mean_scores[value] for value in (True, False))
    told = f"Mean step score of {len(right)} correct and {len(wrong)} incorrect rollouts"
    edges = [i / SCORE_BINS for i in range(SCORE_BINS + 1)]
    return [
        line_chart(by_position, "Step score by position in the rollout", "relative position", "mean step score"),
        histogram(edges, shares, "Mean step score by correctness", "mean step score", "share of rollouts", told),
    ]


def hacking_charts(subjects: Sequence[Subject]) -> list[Chart]:
    """Every ``hack/…`` metric over updates, with the guard's decisions as upright lines and its limits across."""
    marks = [
        (float(entry["step"]), f"{entry.get('action', 'alarm')}: {entry.get('detector', '')}")
        for s in subjects
        for entry in s.run.guard
        if "step" in entry and entry.get("action") != "none"
    ]
    names = sorted({name for s in subjects for row in s.run.metrics for name in row if name.startswith("hack/")})
    charts = []
    for name in names:
        limits = [
            Limit(f"limit of {s.label}, seed {s.run.seed}", s.run.hack_limits[name[5:]], s.style)
            for s in subjects
            if name[5:] in s.run.hack_limits
        ]
        charts.append(metric_chart(subjects, name, name[5:].replace("_", " "), "", marks, limits))
    return _drawn(charts)


def time_charts(subjects: Sequence[Subject]) -> list[Chart]:
    """Seconds by stage of the run, and by part of an update."""
    stages = {name: None for s in subjects for name in s.run.summary.get("seconds") or {}}
    charts = []
    if stages:
        series = [
            Series(
                s.label, [], [float((s.run.summary.get("seconds") or {}).get(n) or 0) for n in stages], style=s.style
            )
            for s in subjects
            if s.run.summary.get("seconds")
        ]
        charts.append(bar_chart(list(stages), series, "Seconds by stage", "stage", "seconds"))
    parts = {"step_time": "whole update", "prm/seconds": "PRM", "verifier/seconds": "verifier"}
    for s in subjects[:1]:
        curves = {told: thinned(logged(s.run, name)) for name, told in parts.items()}
        series = [
            Series(told, sorted(curve), [curve[x].mean for x in sorted(curve)], style=f"part{i}")
            for i, (told, curve) in enumerate(curves.items())
            if curve
        ]
        charts.append(line_chart(series, f"Seconds by part of an update, {s.label}", y_label="seconds"))
    return _drawn(charts)


def _drawn(charts: Sequence[Chart]) -> list[Chart]:
    """The charts that have data."""
    return [chart for chart in charts if chart.rows]
