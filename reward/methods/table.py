"""The tables of methods, made from their docstrings and signatures."""

import inspect
import re

from reward.methods import METHODS, Method
from reward.token_methods import TOKEN_METHODS

SECTIONS = ("Formula", "Use when", "Known failure", "Baseline", "Source")
BIASES = ("unaffected", "own share", "affected")  # how a Baseline paragraph begins


def sections(method: Method) -> dict[str, str]:
    """The labelled paragraphs of a method's docstring, each on one line.

    Raises:
        ValueError: one of ``SECTIONS`` is missing.
    """
    found: dict[str, str] = {}
    for paragraph in (inspect.getdoc(method) or "").split("\n\n"):
        label, _, text = " ".join(paragraph.split()).partition(": ")
        if label in SECTIONS:
            found[label] = text
    missing = [label for label in SECTIONS if label not in found]
    if missing:
        raise ValueError(f"{method.__name__}: its docstring has no paragraph {', '.join(missing)}")
    return found


def baseline_bias(method: Method) -> tuple[str, str]:
    """Whether the method's baseline depends on what the rollout does later: one of ``BIASES``, and the reason.

    Raises:
        ValueError: the paragraph Baseline does not begin with one of ``BIASES`` and a reason.
    """
    bias, _, why = sections(method)["Baseline"].partition(". ")
    if bias not in BIASES or not why:
        raise ValueError(f"{method.__name__}: got the Baseline {bias!r}, expected one of {', '.join(BIASES)}, and why")
    return bias, why


def baselines_table() -> str:
    """A Markdown table of each method's baseline: step methods first, then token methods."""
    lines = ["| method | baseline | why |", "|---|---|---|"]
    for name, method in (METHODS | TOKEN_METHODS).items():
        bias, why = baseline_bias(method)
        lines.append(f"| `{name}` | {bias} | {why} |")
    return "\n".join(lines)


def keywords(method: Method) -> str:
    """The method's keywords and their defaults, written as in a call."""
    parameters = [p for p in inspect.signature(method).parameters.values() if p.kind is p.KEYWORD_ONLY]
    return ", ".join(f"{p.name}={p.default!r}" for p in parameters)


def methods_table() -> str:
    """A Markdown table, one row per entry of ``METHODS``."""
    lines = ["| method | step advantage | use when | paper |", "|---|---|---|---|"]
    for name, method in METHODS.items():
        parts = sections(method)
        given = keywords(method)
        title = f"`{name}`" + (f"<br>`{given}`" if given else "")
        source = re.sub(r"arXiv (\d{4}\.\d{5})", r"[\1](https://arxiv.org/abs/\1)", parts["Source"])
        cells = (title, parts["Formula"], parts["Use when"], source)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)
