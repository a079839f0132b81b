"""The grid: cells, baselines, budgets, and what is refused."""

import pytest
import yaml

from rlhf_prm.ablation.config import load_config, merged


def test_cells_are_the_product_over_base_and_fixed(write, tmp_path):
    (tmp_path / "base.yaml").write_text("max_steps: 80\nworld_settings: {eval_problems: 64}\nmethod: pure\n")
    grid = {
        "method": ["outcome", "pure"],
        "world": {"plain": {}, "filler": {"world_settings": {"filler": True}, "max_completion_length": 120}},
    }
    config = load_config(write(base=str(tmp_path / "base.yaml"), fixed={"baseline": None, "max_steps": 20}, grid=grid))
    cells = {cell.name: cell.arguments for cell in config.cells()}
    assert list(cells) == [
        "method=outcome,world=plain",
        "method=outcome,world=filler",
        "method=pure,world=plain",
        "method=pure,world=filler",
    ]
    assert cells["method=outcome,world=filler"] == {
        "max_steps": 20,
        "world_settings": {"eval_problems": 64, "filler": True},
        "method": "outcome",
        "baseline": None,
        "max_completion_length": 120,
    }
    assert cells["method=pure,world=plain"]["world_settings"] == {"eval_problems": 64}


def test_a_cell_is_compared_with_its_like_in_the_same_world(write):
    config = load_config(write(grid={"method": ["outcome", "good"], "weight": [0.5, 1.0]}))
    cell = next(cell for cell in config.cells() if cell.name == "method=good,weight=0.5")
    assert config.baseline(cell) == (("method", "outcome"), ("weight", "0.5"))


def test_excluded_cells_are_left_out(write):
    config = load_config(
        write(
            grid={"method": ["outcome", "good"], "weight": [1.0, 2.0]}, exclude=[{"method": "outcome", "weight": 2.0}]
        )
    )
    assert [cell.name for cell in config.cells()] == [
        "method=outcome,weight=1.0",
        "method=good,weight=1.0",
        "method=good,weight=2.0",
    ]


@pytest.mark.parametrize(
    ("budget", "key"), [({"updates": 7}, "max_steps"), ({"generated_tokens": 900}, "token_budget")]
)
def test_the_budget_is_the_same_for_every_cell(write, budget, key):
    cells = load_config(write(budget=budget, fixed={"max_steps": 1000})).cells()
    assert {cell.arguments[key] for cell in cells} == set(budget.values())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"grids": {}}, "unknown keys grids; known are base"),
        ({"seeds": []}, "seeds: got nothing"),
        ({"seeds": [1, 1]}, "expected different ones"),
        ({"compare_to": {"method": "grpo"}}, "method=grpo is not in the grid, which has outcome, good, null"),
        ({"compare_to": {"weight": 1}}, "which has axes method"),
        ({"exclude": [{"wieght": 1}]}, "exclude: no axis 'wieght'"),
        ({"budget": {"hours": 3}}, "expected {updates: N}"),
        ({"parallel": 0}, "parallel: got 0"),
        ({"grid": {"method": {"outcome": 3}}}, "method.outcome is not a mapping"),
        ({"grid": {"method": "outcome"}}, "expected a list of values"),
    ],
)
def test_refused(write, changes, told):
    with pytest.raises(ValueError, match=told):
        load_config(write(**changes))


def test_a_budget_beside_an_axis_that_breaks_it_is_refused(write):
    config = load_config(
        write(
            grid={"method": ["outcome"], "length": {"a": {"max_steps": 3}, "b": {"max_steps": 9}}},
            budget={"updates": 5},
        )
    )
    with pytest.raises(ValueError, match="the grid sets max_steps"):
        config.cells()


def test_files_that_are_not_yaml_mappings(tmp_path):
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ValueError, match="got a list, expected a mapping"):
        load_config(tmp_path / "list.yaml")
    with pytest.raises(ValueError, match="no such file"):
        load_config(tmp_path / "absent.yaml")
    (tmp_path / "short.yaml").write_text("recipe: x.py\n")
    with pytest.raises(ValueError, match="missing grid"):
        load_config(tmp_path / "short.yaml")


def test_merging_leaves_its_inputs_alone():
    below = {"a": {"b": 1, "c": 2}, "d": 3}
    assert merged(below, {"a": {"b": 9}, "e": 4}) == {"a": {"b": 9, "c": 2}, "d": 3, "e": 4}
    assert below == {"a": {"b": 1, "c": 2}, "d": 3} and yaml.safe_dump(below)
