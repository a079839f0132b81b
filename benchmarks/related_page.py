"""The tables of ``related.py`` in docs/related_work.md: means over builds, between marks that name the study."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

Row = dict[str, Any]  # study, build, results
Cells = dict[str, dict[str, list[float]]]  # by line and column: one number for each build that has it
JUDGE_CHOICE = {
    "mean@1": "one sample", "maj@8": "majority of 8", "pointwise@8": "pointwise, share of right steps",
    "pairwise@8": "pairwise, knock-out", "pass@8": "any of 8",
}  # fmt: skip
PAIRS = {
    "bradley_terry": "Bradley–Terry", "pcrm, length ratio": "PCRM, length ratio",
    "pcrm, fixed": 'PCRM, control "fixed" (δ* = 3)',
}  # fmt: skip
PAIR_COLUMNS = {
    "accuracy": "accuracy", "spread": "spread of scores", "margin": "mean margin",
    "length_correlation": "correlation with length",
}  # fmt: skip
SMALL = ("as many errors", "half the errors")  # of a judge that is asked small questions
F1_COLUMNS = {"error_accuracy": "errors found", "correct_accuracy": "right ones passed", "f1": "F1"}


def latest(rows: Iterable[Row]) -> list[Row]:
    """The last run of each study and build; a later run without students keeps the students of an earlier one."""
    found: dict[tuple[str, int], Row] = {}
    for row in rows:
        key = row["study"], row["build"]
        before = found.get(key, {"results": {}})["results"]
        found[key] = {**row, "results": {**before, **row["results"]}}
    return list(found.values())


def cells(rows: Iterable[Row]) -> Cells:
    """The numbers of every line and column, in the order of the builds."""
    found: Cells = defaultdict(lambda: defaultdict(list))
    for row in rows:
        for name, numbers in row["results"].items():
            for column, value in numbers.items():
                found[name][column].append(value)
    return found


def mean(values: Sequence[float], digits: int = 3) -> str:
    """Mean ± standard error over the builds; – where there are none."""
    if not values:
        return "–"
    text = f"{np.mean(values):.{digits}f}"
    if len(values) > 1:
        text += f" ± {np.std(values, ddof=1) / len(values) ** 0.5:.{digits}f}"
    return text.replace("-", "−")


def judge_choice(rows: Sequence[Row]) -> str:
    """Accuracy of each rule, questions asked, and wrong processes among right answers."""
    found = cells(rows)
    lines = ["| rule | accuracy | questions |", "|---|---|---|"]
    for name, title in JUDGE_CHOICE.items():
        lines.append(f"| {title} | {mean(found[name]['mean'])} | {mean(found[name]['questions'], 0)} |")
    gaps = [round(row["results"]["pairwise@8"]["mean"] - row["results"]["pointwise@8"]["mean"], 6) for row in rows]
    wrong = found["wrong process"]
    return "\n".join(lines) + (
        f"\n\n{_builds(rows)} The knock-out less the share of right steps: {mean(gaps)}, above 0 in "
        f"{sum(gap > 0 for gap in gaps)} of {len(gaps)}. *Right answer, wrong process*: the judge finds a wrong step "
        f"in {mean(wrong['by the judge'])} of the right answers, the exact checker in {mean(wrong['exact'])}."
    )


def pairs(rows: Sequence[Row]) -> str:
    """Accuracy, spread, margin and length correlation of each loss on the same pairs."""
    found = cells(rows)
    lines = [f"| loss | {' | '.join(PAIR_COLUMNS.values())} |", "|---" * (len(PAIR_COLUMNS) + 1) + "|"]
    for name, title in PAIRS.items():
        lines.append(f"| {title} | {' | '.join(mean(found[name][column]) for column in PAIR_COLUMNS)} |")
    return "\n".join(lines) + f"\n\n{_builds(rows)}"


def decomposed(rows: Sequence[Row]) -> str:
    """First-error F1 of each teacher and student, with the builds that have it."""
    found = cells(rows)
    lines = [f"| | builds | {' | '.join(F1_COLUMNS.values())} |", "|---" * (len(F1_COLUMNS) + 2) + "|"]
    for name in sorted(found, key=lambda one: (not one.startswith("teacher"), "at once" not in one, one)):
        builds = ", ".join(str(row["build"]) for row in rows if name in row["results"])
        lines.append(f"| {name} | {builds} | {' | '.join(mean(found[name][column]) for column in F1_COLUMNS)} |")
    leads = [lead for errors in SMALL if (lead := _lead_of_small_questions(rows, errors))]
    return "\n".join([*lines, "", *leads] if leads else lines)


def _lead_of_small_questions(rows: Sequence[Row], errors: str) -> str:
    """The teacher's F1 in small questions less that at once, build by build."""
    small, once = f"teacher, small questions, {errors}", "teacher, at once"
    both = [row["results"] for row in rows if {small, once} <= row["results"].keys()]
    gaps = [one[small]["f1"] - one[once]["f1"] for one in both]
    if not gaps:
        return ""
    return (
        f"Small questions with {errors}, less the same judge at once: F1 {mean(gaps)}, above 0 in "
        f"{sum(gap > 0 for gap in gaps)} of {len(gaps)} builds."
    )


TABLES = {"judge_choice": judge_choice, "pairs": pairs, "decomposed": decomposed}


def _builds(rows: Sequence[Row]) -> str:
    return f"Builds {', '.join(str(row['build']) for row in rows)}."


def tables(rows: Iterable[Row]) -> dict[str, str]:
    """The table of every study that has been run."""
    found = sorted(latest(rows), key=lambda row: row["build"])
    of_study = {name: [row for row in found if row["study"] == name] for name in TABLES}
    return {name: TABLES[name](chosen) for name, chosen in of_study.items() if chosen}


def filled(page: str, rows: Iterable[Row]) -> str:
    """The page with every study's table between its marks.

    Raises:
        ValueError: the page lacks the marks of a study.
    """
    for name, table in tables(rows).items():
        pattern = rf"(<!-- {name}: [^\n]*-->\n).*?(<!-- end of {name} -->)"
        page, count = re.subn(
            pattern, lambda found, table=table: f"{found[1]}{table}\n{found[2]}", page, flags=re.DOTALL
        )
        if count != 1:
            raise ValueError(f"got {count} places for the table of {name}, expected one between its two marks")
    return page
