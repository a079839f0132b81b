"""Builds the page: one HTML file with its style, scripts, drawings and a sample of the rollouts inside."""

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

from bokeh.resources import Resources
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rlhf_prm.files import write_text
from rlhf_prm.report.charts import (
    Subject,
    hacking_charts,
    learning_charts,
    process_charts,
    reward_charts,
    score_charts,
    time_charts,
)
from rlhf_prm.report.gallery import gallery
from rlhf_prm.report.plot_parts import plot_json
from rlhf_prm.report.runs import Run, read_run
from rlhf_prm.report.sampling import gather
from rlhf_prm.report.styles import styles_of
from rlhf_prm.statistics import share_interval

BUDGET = 3_000_000  # characters of rollouts; with the charts the page stays below 5 MB
BOKEH = Resources(mode="inline", components=["bokeh"], log_level="warn")  # the library itself, out of its wheel
Part = dict[str, Any]


def write_report(run_dir: str | Path, out: str | Path | None = None) -> Path:
    """Write the page of one run with its baseline and its ceiling, if it has them.

    Args:
        run_dir: the run's folder (summary.json, metrics.jsonl, completions/, baseline/, ceiling/); any part may be
            absent.
        out: the path of the page; default: ``run_dir/report.html``.

    Returns:
        The path of the page, one self-contained file.

    Raises:
        ValueError: the folder is absent or holds no part of a run.
    """
    run = read_run(run_dir)
    runs = {run.method: run}
    for beside in (run.baseline, run.ceiling):
        if beside:
            runs[f"{beside.method} ({beside.name})"] = beside
    styles = styles_of((label, one.method) for label, one in runs.items())
    subjects = [Subject(label, styles[label], one, gather(one)) for label, one in runs.items()]
    lead = f"{run.method}, seed {run.seed}" + (
        f", beside {' and '.join(s.label for s in subjects[1:])} on the same seed." if len(subjects) > 1 else "."
    )
    return _write(subjects, run.name, lead, Path(out) if out else Path(run_dir) / "report.html")


def write_comparison(run_dirs: Sequence[str | Path], out: str | Path) -> Path:
    """Write one page that compares several runs; runs that differ only in their seed are averaged.

    Raises:
        ValueError: a folder is absent or holds no part of a run.
    """
    runs = [read_run(path) for path in run_dirs]
    labels = _labels(runs)
    styles = styles_of((label, run.method) for label, run in zip(labels, runs, strict=True))
    subjects = [Subject(label, styles[label], run, gather(run)) for label, run in zip(labels, runs, strict=True)]
    lead = f"{len(runs)} runs of {len(styles)} kinds." if len(styles) < len(runs) else f"{len(runs)} runs."
    return _write(subjects, "Comparison of runs", lead, Path(out))


def _labels(runs: Sequence[Run]) -> list[str]:
    """The method, if it distinguishes all runs that differ in more than the seed; else the folder's name."""
    kinds = [
        str(sorted(_settings(run, without=("seed", "output_dir", "run_name", "logging_dir", "resume_from_checkpoint"))))
        for run in runs
    ]
    ambiguous = {
        run.method for run, kind in zip(runs, kinds, strict=True)
        if any(other.method == run.method and k != kind for other, k in zip(runs, kinds, strict=True))
    }  # fmt: skip
    return [run.name if run.method in ambiguous else run.method for run in runs]


def _write(subjects: list[Subject], title: str, lead: str, out: Path) -> Path:
    parts = page_parts(subjects)
    total = sum(s.gathered.rollouts > 0 for s in subjects)
    galleries = [
        gallery(_gallery_title(s, subjects), s.gathered, BUDGET // total) for s in subjects if s.gathered.rollouts
    ]
    return render(out, title, lead, parts, galleries, [_told(s) for s in subjects])


def render(out: Path, title: str, lead: str, parts: list[Part], galleries: list[Part], settings: list[Part]) -> Path:
    """Fill the template. All text is escaped; the style and the scripts are the package's own and Bokeh's."""
    loader = PackageLoader("rlhf_prm.report")
    environment = Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    # Bokeh reads a drawing in the order in which it was written
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "separators": (",", ":")}
    numbers = count()
    contents = [(part["id"], part["title"]) for part in parts]
    contents += [("rollouts", "Rollouts")] * bool(galleries) + [("settings", "Settings and versions")]
    page = environment.get_template("report.html.j2").render(
        title=title,
        lead=lead,
        contents=contents,
        parts=parts,
        galleries=galleries,
        settings=settings,
        drawn=lambda chart: plot_json(chart.plot, f"plot{next(numbers)}"),
        library=[Markup(script) for script in BOKEH.js_raw],
        style=_verbatim(environment, "report.css"),
        script=_verbatim(environment, "report.js"),
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, page)
    return out


def _verbatim(environment: Environment, name: str) -> Markup:
    return Markup(environment.loader.get_source(environment, name)[0])


def page_parts(subjects: list[Subject]) -> list[Part]:
    """The sections between the head and the rollouts; those without data are left out."""
    intervals = (
        "Bands are 95 % intervals: Wilson's for held-out accuracy, Student's t over groups for training rollouts, and"
        " Student's t over seeds where several seeds are averaged."
    )
    limits = (
        "Upright lines are decisions of the guard, listed below. A dashed line across is a detector's limit: the mean"
        " of a few updates past it is a suspicion."
    )
    scores = [chart for s in subjects if len(subjects) <= 2 for chart in score_charts(s)]
    told = subjects[0].label if len(subjects) <= 2 else ""
    parts = [
        _part("result", "Result", "", tables=_result_tables(subjects)),
        _part("learning", "Learning curves", intervals, learning_charts(subjects)),
        _part("reward", "What the reward is made of", "", reward_charts(subjects)),
        _part("process", "Process against outcome", "", process_charts(subjects)),
        _part("scores", "Step scores", f"All logged rollouts of {told}.", scores[:2]),
        _part("hacking", "Hacking timeline", limits, hacking_charts(subjects), _guard_tables(subjects)),
        _part("time", "Where the time goes", "", time_charts(subjects)),
    ]
    return [part for part in parts if part["charts"] or part["tables"]]


def _part(id: str, title: str, note: str, charts: Sequence[Any] = (), tables: Sequence[Part] = ()) -> Part:
    return {"id": id, "title": title, "note": note, "charts": list(charts), "tables": list(tables)}


def _result_tables(subjects: list[Subject]) -> list[Part]:
    """Held-out accuracy before and after, a row for each measure: so the table fits a narrow window too."""
    header = ["run", "seed", "share of held-out problems with", "before", "after", "gain", "rollouts"]
    rows = []
    for s in subjects:
        for name, told in (("accuracy", "a right answer"), ("process_accuracy", "every step right")):
            measured = s.run.summary.get(name) or {}
            if name == "process_accuracy" and not measured:
                continue
            before, after = measured.get("before"), measured.get("after")
            gain = f"{after - before:+.3f}" if None not in (before, after) else "–"
            shares = [_share(before, s.run), _share(after, s.run)]
            rows.append([s.label, str(s.run.seed), told, *shares, gain, str(s.gathered.rollouts)])
    return [{"title": "", "header": header, "rows": rows}]


def _share(value: float | None, run: Run) -> str:
    total = run.eval_problems
    if value is None:
        return "–"
    interval = share_interval(value * total, total)
    if not total:
        return f"{value:.3f}"
    return f"{value:.3f} ({interval.low:.3f}\u00a0to\u00a0{interval.high:.3f})"  # an interval is not torn apart


def _guard_tables(subjects: list[Subject]) -> list[Part]:
    """HackGuard's decisions with their evidence, detectors named as over the charts (spaces let them wrap)."""
    tables = []
    for s in subjects:
        if s.run.guard:
            keys = list(dict.fromkeys(key for entry in s.run.guard for key in entry))
            rows = [[str(entry.get(key, "–")).replace("_", " ") for key in keys] for entry in s.run.guard[:200]]
            header = [key.replace("_", " ") for key in keys]
            tables.append({"title": f"Decisions of the guard, {s.label}", "header": header, "rows": rows})
    return tables


def _gallery_title(subject: Subject, subjects: list[Subject]) -> str:
    alone = sum(s.label == subject.label for s in subjects) == 1
    return subject.label if alone else f"{subject.label}, seed {subject.run.seed}"


def _settings(run: Run, without: Sequence[str] = ()) -> list[tuple[str, str]]:
    return [(key, str(value)) for key, value in run.settings.items() if key not in without]


def _told(subject: Subject) -> Part:
    versions = [(key, str(value)) for key, value in (subject.run.summary.get("versions") or {}).items()]
    title = f"{subject.label}, seed {subject.run.seed}: {subject.run.path}"
    return {"title": title, "settings": _settings(subject.run), "versions": versions}
