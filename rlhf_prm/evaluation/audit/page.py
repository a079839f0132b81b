"""The audit as a text table and as one self-contained HTML page."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from rlhf_prm.evaluation.audit.lines import number
from rlhf_prm.evaluation.audit.run import Audit
from rlhf_prm.files import write_text

MARKS = {"ok": "✓ ok", "with care": "⚠ with care", "unsafe": "✗ unsafe", "not measured": "– not measured"}
Ranking = Sequence[tuple[str, float, bool]]


def audit_text(audit: Audit) -> str:
    """One line per finding: verdict, value, interval, name."""
    lines = [f"{audit.prm}: {MARKS[audit.verdict]}  ({audit.solutions} solutions of {audit.problems} problems)"]
    for line in audit.lines:
        interval = f"[{number(line.interval[0])}, {number(line.interval[1])}]" if line.interval else ""
        lines.append(f"  {MARKS[line.verdict]:<15}{number(line.value):>7}  {interval:<16}  {line.name}")
    return "\n".join(lines)


def audit_page(audits: Sequence[Audit], ranking: Ranking = (), warnings: Sequence[str] = ()) -> str:
    """The HTML page: no script, nothing fetched; every text from a model is escaped. ``warnings`` go to the ranking."""
    environment = Environment(
        loader=PackageLoader("rlhf_prm.evaluation"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    template = environment.get_template("audit.html.j2")
    return template.render(audits=audits, ranking=ranking, warnings=warnings, marks=MARKS, number=number)


def write_audit_page(path: Path, audits: Sequence[Audit], ranking: Ranking = (), warnings: Sequence[str] = ()) -> None:
    """Write :func:`audit_page` to a file, and create its folder if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, audit_page(audits, ranking, warnings))
