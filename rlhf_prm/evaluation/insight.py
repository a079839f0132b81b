"""A language model summarises a table of accuracy by category, with the table as its only evidence.

The last part of QualEval (arXiv 2311.02807). The model sees the table and nothing else; numbers in its text that the
table does not contain are listed, so that a reader need not check each of them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf_prm.generation import Generator
from rlhf_prm.judges.forms import UnparseableAnswer, without_thoughts

INSIGHT_PROMPT = """A process reward model was held against a verifier on solutions of mathematics problems. The table \
says, for each kind of problem, in what share of the solutions the two agree, with a 95 % interval and the number of \
solutions.

{table}

Write three to five sentences for the people who train this model. Say on which kinds of problem it fails, where the \
intervals are too wide or overlap too much to say anything, and what data or checks would help. Use the numbers of the \
table and no others, claim nothing that it does not show, and name no causes that cannot be read from it."""

_NUMBER = re.compile(r"(?<![\w.])[0-9]+(?:[.,][0-9]+)*(\s*%| percent| per cent)?")
_COUNTED_WORDS = 12  # small whole numbers, such as of categories or sentences, need no evidence


@dataclass(frozen=True)
class Insight:
    """The text, the table it is about, and the numbers in it that are not the table's."""

    text: str
    evidence: dict[str, dict[str, Any]]
    unsupported: list[str]


def written_insight(generator: Generator, table: Mapping[str, Mapping[str, Any]], seed: int = 0) -> Insight:
    """A language model's summary of a table of ``accuracy_by_category``.

    Raises:
        ValueError: the table is empty, or the model writes nothing.
    """
    if not table:
        raise ValueError("got no categories to write about")
    prompt = INSIGHT_PROMPT.replace("{table}", _as_text(table))
    answer = generator.generate([[{"role": "user", "content": prompt}]], 1, seed=[seed], stop=None)[0][0]
    try:
        text = without_thoughts(answer).strip()
    except UnparseableAnswer as error:
        raise ValueError(f"the model wrote no insight: {error}") from error
    return Insight(text, {name: dict(row) for name, row in table.items()}, unsupported_numbers(text, table))


def unsupported_numbers(text: str, table: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The numbers of a text that are not in the table, at the precision that the text gives.

    Shares may be given as fractions or percent. Names of categories may contain numbers; whole numbers up to 12 are
    ignored.
    """
    told = text
    for name in sorted(table, key=len, reverse=True):
        told = told.replace(name, " ")
    told = re.sub(r"\b95\s*(?:%|percent|per cent)", " ", told)  # of the intervals
    return [match[0].strip() for match in _NUMBER.finditer(told) if not _is_in(match, table)]


def _is_in(match: re.Match[str], table: Mapping[str, Mapping[str, Any]]) -> bool:
    digits = re.sub(r"[^0-9.]", "", match[0])
    value, decimals = float(digits), len(digits.partition(".")[2])
    counts = {float(row["samples"]) for row in table.values()}
    counts.add(sum(counts))
    if not match[1] and value == int(value) and (value in counts or value <= _COUNTED_WORDS):
        return True
    shares = [float(row[key]) for row in table.values() for key in ("accuracy", "low", "high")]
    scales: Sequence[float] = (100.0,) if match[1] else (1.0, 100.0)
    return any(abs(share * scale - value) <= 0.5 * 10**-decimals + 1e-9 for share in shares for scale in scales)


def _as_text(table: Mapping[str, Mapping[str, Any]]) -> str:
    lines = ["| kind of problem | agreement | 95 % interval | solutions |", "|---|---|---|---|"]
    for name, row in table.items():
        interval = f"{row['low']:.2f} to {row['high']:.2f}"
        lines.append(f"| {name} | {row['accuracy']:.2f} | {interval} | {row['samples']} |")
    return "\n".join(lines)
