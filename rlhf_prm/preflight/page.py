"""The preflight on the terminal, and as one self-contained HTML page."""

import textwrap
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from rlhf_prm.evaluation.audit.lines import number
from rlhf_prm.files import write_json, write_text
from rlhf_prm.preflight.run import Preflight, pays
from rlhf_prm.preflight.wording import SECTIONS, written

WIDTH = 110


def preflight_text(result: Preflight) -> str:
    """The verdict, its reasons, and one line per measure."""
    close = " (close to a limit: more samples may turn it)" if result.verdict.close else ""
    lines = [
        f"{result.verdict.headline}{close}",
        f"Method to take: {result.verdict.method}",
        *(_wrapped(reason, "  · ") for reason in result.verdict.reasons),
    ]
    if result.warning:
        lines.append(_wrapped(f"Warning: {result.warning}", ""))
    for title, section in SECTIONS.items():
        lines += ["", title]
        lines += [f"  {line.title:<50} {written(result.measures, line.measure)}" for line in section]
    if result.probes:
        lines += ["", "Would hacks pay? (largest mean rise of a score over product, min, last, mean)"]
        lines += [f"  {line.name:<50} {number(line.value)}{'  pays' if pays(line) else ''}" for line in result.probes]
    return "\n".join(lines)


def _wrapped(text: str, mark: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent=mark, subsequent_indent=" " * len(mark))


def preflight_page(result: Preflight) -> str:
    """The HTML page. It has no script and fetches nothing, and every text is escaped."""
    loader = ChoiceLoader([PackageLoader("rlhf_prm.preflight"), PackageLoader("rlhf_prm.evaluation")])
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = environment.get_template("preflight.html.j2")
    marks = {"pay": "ok", "not to matter": "with-care", "harm": "unsafe", "cannot tell": "not-measured"}
    return template.render(
        result=result,
        sections=SECTIONS,
        written=lambda name: written(result.measures, name),
        number=number,
        pays=pays,
        mark=marks[result.verdict.kind],
    )


def write_preflight(result: Preflight, page: Path, data: Path) -> None:
    """The page, and everything on it as JSON."""
    for path in (page, data):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_text(page, preflight_page(result))
    write_json(data, result.as_dict())
