"""Step labels for code by mutation and tests (HGS-PRM, arXiv 2310.10080).

A program that passes its tests is right in every line. One small change in one line (an operator, a comparison, a
number) makes a mutant. If a test now fails, that line is wrong and the lines before it are right. A mutant that still
passes gives no label: the change may not matter, or the tests may be too weak.
"""

import ast
import random
import textwrap
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from rlhf_prm.sandbox import PythonTool
from rlhf_prm.step_data import StepLabels

ARITHMETIC = {ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "+"), ast.FloorDiv: ("//", "*")}
ARITHMETIC |= {ast.Mod: ("%", "//"), ast.Div: ("/", "*")}
COMPARISONS = {ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">")}
COMPARISONS |= {ast.Eq: ("==", "!="), ast.NotEq: ("!=", "==")}
BOOLEANS = {ast.And: ("and", "or"), ast.Or: ("or", "and")}
MEMORY = 512 * 2**20  # bytes of address space that a tested program may have
SOURCE = "mutation"


@dataclass(frozen=True)
class Program:
    """A task, a program that solves it, and its tests (assertions, run after the program in one namespace)."""

    problem: str
    code: str
    tests: str


@dataclass(frozen=True)
class Mutant:
    """A program with one changed line (0-based ``line`` of the source), and which kind of change it is."""

    code: str
    line: int
    kind: str


@dataclass
class MutationReport:
    """Counts of the programs, and of the killed and surviving mutants by kind of change."""

    programs: int = 0
    failing: list[str] = field(default_factory=list)
    killed: Counter = field(default_factory=Counter)
    survived: Counter = field(default_factory=Counter)

    def table(self) -> dict[str, dict[str, Any]]:
        """A row for each kind of change, and one over all: mutants, killed, and the share."""
        kinds = sorted({*self.killed, *self.survived})
        rows = {kind: (self.killed[kind], self.survived[kind]) for kind in kinds}
        rows["all"] = (sum(self.killed.values()), sum(self.survived.values()))
        return {
            name: {"mutants": killed + left, "killed": killed, "share": killed / max(1, killed + left)}
            for name, (killed, left) in rows.items()
        }


def code_steps(code: str) -> list[str]:
    """The lines of a program as steps, with their indentation: a statement over several lines is one step, and blank
    lines and comments belong to the statement after them.

    Raises:
        ValueError: the code is not valid Python.
    """
    return ["\n".join(lines) for lines in _grouped(code)]


def _grouped(code: str) -> list[list[str]]:
    lines, starts = code.strip("\n").split("\n"), _statement_lines(code)
    groups: list[list[str]] = []
    waiting: list[str] = []
    for number, line in enumerate(lines):
        waiting.append(line)
        if number in starts:
            groups.append(waiting)
            waiting = []
        elif groups and line.strip() and not line.lstrip().startswith("#"):
            groups[-1] += waiting  # these lines belong to the statement before
            waiting = []
    if waiting and groups:
        groups[-1] += waiting
    return groups


def _statement_lines(code: str) -> set[int]:
    """0-based lines on which statements begin; decorators and ``else`` belong to the lines before them."""
    try:
        tree = ast.parse(code.strip("\n"))
    except SyntaxError as error:
        raise ValueError(f"not a Python program: line {error.lineno}: {error.msg}") from error
    return {node.lineno - 1 for node in ast.walk(tree) if isinstance(node, ast.stmt)}


def mutants(code: str) -> list[Mutant]:
    """Every program that differs from ``code`` by one change in one line, in the order of the lines."""
    code = code.strip("\n")
    lines, found = code.split("\n"), []
    for node in ast.walk(ast.parse(code)):
        for kind, start, end, old, new in _changes(node):
            row, column, stop = start[0] - 1, start[1], end[1]
            if start[0] != end[0] or not lines[row].isascii():  # offsets count bytes
                continue
            piece = lines[row][column:stop]
            if old not in piece:
                continue
            changed = lines[row][:column] + piece.replace(old, new, 1) + lines[row][stop:]
            found.append(Mutant("\n".join([*lines[:row], changed, *lines[row + 1 :]]), row, kind))
    return sorted(set(found), key=lambda mutant: (mutant.line, mutant.kind, mutant.code))


def _changes(node: ast.AST) -> list[tuple[str, tuple[int, int], tuple[int, int], str, str]]:
    """(kind, start, end, old, new): between two places of the source ``old`` becomes ``new``."""
    if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        return [("arithmetic", _end(node.left), _start(node.right), *ARITHMETIC[type(node.op)])]
    if isinstance(node, ast.AugAssign) and type(node.op) in ARITHMETIC:
        return [("arithmetic", _end(node.target), _start(node.value), *ARITHMETIC[type(node.op)])]
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        return [
            ("comparison", _end(sides[i]), _start(sides[i + 1]), *COMPARISONS[type(op)])
            for i, op in enumerate(node.ops)
            if type(op) in COMPARISONS
        ]
    if isinstance(node, ast.BoolOp):
        return [("boolean", _end(node.values[0]), _start(node.values[1]), *BOOLEANS[type(node.op)])]
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return [("number", _start(node), _end(node), str(node.value), str(node.value + 1))]
    return []


def _start(node: ast.expr) -> tuple[int, int]:
    return node.lineno, node.col_offset


def _end(node: ast.expr) -> tuple[int, int]:
    assert node.end_lineno is not None and node.end_col_offset is not None  # nodes of parsed source have both
    return node.end_lineno, node.end_col_offset


def passes(code: str, tests: str, timeout: float = 5.0) -> bool:
    """Whether the program ends, within ``timeout`` seconds, with every test passed.

    It runs in the sandbox (docs/sandbox.md), with all protections that this machine offers.
    """
    tool = PythonTool(seconds=timeout, memory=MEMORY, required=())
    return tool.execute(f"{textwrap.dedent(code)}\n\n{textwrap.dedent(tests)}\n").state == "done"


def mutation_rows(
    programs: Sequence[Program],
    *,
    most: int = 4,
    seed: int = 0,
    timeout: float = 5.0,
    workers: int = 4,
) -> tuple[list[dict[str, Any]], MutationReport]:
    """Stepwise rows: each program, all lines right, and up to ``most`` of its killed mutants, drawn by ``seed``.

    Mutants are tried in a drawn order until ``most`` of them are killed. A program that fails its own tests gives no
    row and is listed in ``failing``.

    Raises:
        ValueError: a program is not valid Python.
    """
    report = MutationReport(programs=len(programs))
    steps = [code_steps(program.code) for program in programs]
    drawn = [mutants(program.code) for program in programs]  # here: Python 3.11 parses in one thread only
    for index, found in enumerate(drawn):
        random.Random(f"mutants {seed} {index}").shuffle(found)
    with ThreadPoolExecutor(workers) as pool:
        jobs = list(pool.map(lambda job: _tried(*job, most, timeout), zip(programs, drawn, strict=True)))
    rows = []
    for program, right, tried in zip(programs, steps, jobs, strict=True):
        if tried is None:
            report.failing.append(program.problem)
            continue
        rows.append(StepLabels([True] * len(right), [1.0] * len(right), SOURCE).row(program.problem, right))
        for mutant, killed in tried:
            (report.killed if killed else report.survived)[mutant.kind] += 1
            if killed:
                rows.append(_row(program.problem, right, code_steps(mutant.code)))
    return rows, report


def _tried(program: Program, drawn: Sequence[Mutant], most: int, timeout: float) -> list[tuple[Mutant, bool]] | None:
    """Mutants and whether they were killed, until ``most`` are; None for a program that fails its own tests."""
    if not passes(program.code, program.tests, timeout):
        return None
    tried: list[tuple[Mutant, bool]] = []
    for mutant in drawn:
        if sum(killed for _, killed in tried) == most:
            break
        tried.append((mutant, not passes(mutant.code, program.tests, timeout)))
    return tried


def _row(problem: str, right: Sequence[str], changed: list[str]) -> dict[str, Any]:
    wrong = next(k for k, (old, new) in enumerate(zip(right, changed, strict=True)) if old != new)
    labels = [True] * wrong + [False]
    return StepLabels(labels, [float(label) for label in labels], SOURCE).row(problem, changed)
