"""An ablation's YAML: a grid over the arguments of a recipe, and the cell that each is compared with."""

import copy
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf_prm.settings import build, read_mapping

Overrides = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One point of the grid: ``labels`` (axis → label) names it, ``arguments`` are the recipe's."""

    labels: tuple[tuple[str, str], ...]
    arguments: Overrides

    @property
    def name(self) -> str:
        """A readable name that can be a folder's name."""
        return ",".join(f"{axis}={label}" for axis, label in self.labels).replace("/", "_")


@dataclass(frozen=True)
class AblationConfig:
    """A grid of runs.

    Args:
        recipe: the script that one cell runs; it takes ``--config FILE``.
        base: a recipe's YAML file that every cell starts from.
        fixed: arguments over ``base`` for every cell.
        grid: axis → its points. A list gives the values of the argument that the axis is named after; a mapping gives
            label → arguments, for points that are more than one value.
        exclude: cells to leave out, as axis → label; a cell is left out when all of an entry matches.
        seeds: each cell runs once with each.
        compare_to: axis → label. A cell is compared with the one that has these labels and is otherwise equal.
        metrics: what to compare, as dotted paths into summary.json; the first is the main one.
        budget: ``{updates: N}`` or ``{generated_tokens: N}``, the same for every cell.
        output_dir: where cells, tables and the page go.
        launcher: the command of one cell, with {python}, {recipe}, {config}, {output_dir}, {name}, {seed} and {slot}
            (0 … parallel − 1: one GPU each by ``env CUDA_VISIBLE_DEVICES={slot} …``). ``fork`` runs cells in children
            of this process, which has imported the recipe once: no start-up for each, one machine, CPU only.
        parallel: how many cells at once.

    Raises:
        ValueError: a key is unknown, or settings contradict each other.
    """

    recipe: str
    grid: dict[str, Any]
    base: str | None = None
    fixed: Overrides = field(default_factory=dict)
    exclude: list[dict[str, Any]] = field(default_factory=list)
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2, 3, 4])
    compare_to: dict[str, Any] = field(default_factory=lambda: {"method": "outcome"})
    metrics: list[str] = field(default_factory=lambda: ["accuracy.after", "process_accuracy.after"])
    budget: dict[str, int] = field(default_factory=dict)
    output_dir: str = "runs/ablation"
    launcher: str = "{python} {recipe} --config {config}"
    parallel: int = 1

    def __post_init__(self) -> None:
        for name in ("grid", "seeds", "metrics"):
            if not getattr(self, name):
                raise ValueError(f"{name}: got nothing, expected at least one entry")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: got {self.seeds}, expected different ones")
        if self.parallel < 1:
            raise ValueError(f"parallel: got {self.parallel}, expected at least 1")
        if set(self.budget) - {"updates", "generated_tokens"} or len(self.budget) > 1:
            raise ValueError(f"budget: got {self.budget}, expected {{updates: N}} or {{generated_tokens: N}}")
        for axis, label in self.compare_to.items():
            if axis not in self.grid or str(label) not in self.points(axis):
                had = ", ".join(self.points(axis)) if axis in self.grid else f"axes {', '.join(self.grid)}"
                raise ValueError(f"compare_to: {axis}={label} is not in the grid, which has {had}")
        for axis in (axis for entry in self.exclude for axis in entry):
            if axis not in self.grid:
                raise ValueError(f"exclude: no axis {axis!r} in the grid, which has {', '.join(self.grid)}")

    def points(self, axis: str) -> dict[str, Overrides]:
        """Label → arguments of one axis."""
        values = self.grid[axis]
        if isinstance(values, Mapping):
            wrong = [label for label, arguments in values.items() if not isinstance(arguments, Mapping)]
            if wrong:
                raise ValueError(f"grid: {axis}.{wrong[0]} is not a mapping of arguments; write {axis} as a list?")
            return {str(label): dict(arguments) for label, arguments in values.items()}
        if not isinstance(values, list) or not values:
            raise ValueError(f"grid: got {axis}: {values!r}, expected a list of values or label → arguments")
        return {str(value): {axis: value} for value in values}

    def cells(self) -> list[Cell]:
        """Every cell, in the order of the grid.

        Raises:
            ValueError: the budget is set by a cell too, so that cells would not be equal.
        """
        start = merged(read_mapping(self.base) if self.base else {}, self.fixed)
        cells = []
        for labels in itertools.product(*(self.points(axis) for axis in self.grid)):
            chosen = tuple(zip(self.grid, labels, strict=True))
            if any(all(dict(chosen)[axis] == str(label) for axis, label in entry.items()) for entry in self.exclude):
                continue
            arguments = copy.deepcopy(start)
            for axis, label in chosen:
                arguments = merged(arguments, self.points(axis)[label])
            cells.append(Cell(chosen, self._with_budget(arguments)))
        return cells

    def baseline(self, cell: Cell) -> tuple[tuple[str, str], ...]:
        """The labels of the cell that ``cell`` is compared with."""
        return tuple((axis, str(self.compare_to.get(axis, label))) for axis, label in cell.labels)

    def _with_budget(self, arguments: Overrides) -> Overrides:
        in_grid = {key for axis in self.grid for point in self.points(axis).values() for key in point}
        keys = {"updates": "max_steps", "generated_tokens": "token_budget"}
        for kind, amount in self.budget.items():
            if keys[kind] in in_grid or "max_steps" in in_grid:
                raise ValueError(
                    f"budget: {kind} is set for all cells, and the grid sets max_steps or {keys[kind]} too"
                )
            arguments = merged(arguments, {keys[kind]: amount})
        return arguments


def merged(below: Overrides, above: Mapping[str, Any]) -> Overrides:
    """``above`` over ``below``; mappings in both are merged."""
    result = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else copy.deepcopy(value)
    return result


def load_config(path: str | Path) -> AblationConfig:
    """The ablation that a YAML file describes.

    Raises:
        ValueError: as ``AblationConfig``, and as ``read_mapping`` and ``build``.
    """
    return build(AblationConfig, read_mapping(path), str(path))
