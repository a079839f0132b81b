"""PoEM on models of known skill; QualEval's integer program against brute force."""

import random
from itertools import product

import numpy as np
import pytest

from rlhf_prm.evaluation.poem import (
    agreement,
    consistency_weights,
    independence,
    independent_ranking,
    mean_consistency,
    poem_ranking,
)
from rlhf_prm.evaluation.qualeval import accuracy_by_category, assign_categories, named_categories, scored_affinity
from tests.evaluation.fakes import ScriptedGenerator


def test_agreement_by_hand():
    np.testing.assert_allclose(agreement([[0, 1, -1, 2], [0, 1, 1, 1]]), [[1, 0.5], [0.5, 1]])
    with pytest.raises(ValueError, match=r"got predictions on \[1, 2\] items"):
        agreement([[0], [0, 1]])


def test_weights_are_the_leading_eigenvector():
    similarity = np.array([[1.0, 0.8, 0.3], [0.8, 1.0, 0.4], [0.3, 0.4, 1.0]])
    bare = similarity - np.eye(3)
    values, vectors = np.linalg.eigh(bare)
    leading = np.abs(vectors[:, values.argmax()])
    weights = consistency_weights(similarity, [0, 1, 2])
    # Σ_j S_ij w_j = λ w_i, divided by the weight of the others
    np.testing.assert_allclose(weights, values.max() * leading / (leading.sum() - leading), rtol=1e-6)


def models(skills, items=600, seed=0):
    generator = random.Random(seed)
    truth = [generator.randint(-1, 4) for _ in range(items)]
    return [[label if generator.random() < skill else generator.randint(-1, 4) for label in truth] for skill in skills]


@pytest.mark.parametrize("seed", range(5))
def test_ranking_follows_skill_without_labels(seed):
    ranking = poem_ranking(agreement(models([0.3, 0.9, 0.6, 0.75], seed=seed)))
    assert ranking.order == [1, 3, 2, 0]


def test_the_weakest_references_are_dropped_while_consistency_rises():
    similarity = agreement(models([0.9, 0.85, 0.1]))
    ranking = poem_ranking(similarity)
    assert ranking.kept == [True, True, False]
    assert mean_consistency(similarity, [0, 1]) > mean_consistency(similarity, [0, 1, 2])
    equal = poem_ranking(np.ones((3, 3)))
    assert equal.kept == [True, True, True] and equal.weights == pytest.approx([1, 1, 1])
    assert poem_ranking(np.eye(2)).weights == [0.0, 0.0]
    with pytest.raises(ValueError, match="got 1, expected at least 2"):
        poem_ranking(np.ones((1, 1)))


def test_constant_scorers_are_no_references():
    """Two PRMs that never find an error agree on everything; two others find most errors and would be ranked behind."""
    skilled, middling = models([0.9, 0.6], items=100)
    predictions = [skilled, middling, [-1] * 100, [-1] * 91 + [2] * 9]
    assert set(poem_ranking(agreement(predictions)).order[:2]) == {2, 3}
    ranking, said = independent_ranking(["good", "so-so", "a", "b"], predictions)
    assert ranking.kept == [True, True, False, False] and set(ranking.order[:2]) == {0, 1}
    assert said[0].startswith("a finds no wrong step in 100% of the solutions")
    assert said[1].startswith("b finds no wrong step in 91%")
    assert said[2] == "no references, for the reasons above: a, b"
    found = independence(["c", "d"], [[3] * 10, [-1] * 8 + [0, 1]])
    assert found.warnings[0].startswith("c calls step 4 the first wrong one in 100%")
    assert found.kept == [0, 1] and "none is dropped and the ranking is worth nothing" in found.warnings[1]


def test_a_clone_counts_once_and_has_its_twins_weight():
    """A weak model and its copy agree completely; without them being one, both would lead."""
    skills = models([0.9, 0.8, 0.7, 0.3], items=300)
    predictions = [*skills, list(skills[3])]
    assert poem_ranking(agreement(predictions)).order[0] in (3, 4)
    ranking, said = independent_ranking(list("abcde"), predictions)
    assert ranking.order[:3] == [0, 1, 2] and ranking.kept[4] is False
    assert ranking.weights[4] == ranking.weights[3]
    assert said[0] == "e gives the same answer as d to 100% of the solutions: the two count as one model"
    assert said[1] == "no references, for the reasons above: e"
    assert said[2].startswith("dropped as a reference: d; without it the references agree in")


def test_models_that_err_together_are_named_and_independent_ones_are_not():
    generator = random.Random(0)
    truth = [generator.randint(-1, 4) for _ in range(400)]
    a, b, c = models([0.9, 0.8, 0.7], items=400)  # of the same truth: the same seed draws it first
    shared = [(t + 2) % 6 - 1 if generator.random() < 0.3 else t for t in truth]
    like = [[s if generator.random() < 0.9 else generator.randint(-1, 4) for s in shared] for _ in range(2)]
    warnings = independence(list("abcde"), [a, b, c, *like]).warnings
    assert [warning[:7] for warning in warnings] == ["d and e"] and "do not err independently" in warnings[0]
    for seed in range(10):
        independent = models([0.9, 0.75, 0.6, 0.6, 0.5], items=400, seed=seed)
        assert independence(list("abcde"), independent).warnings == []


def brute_force(affinity, slack):
    samples, categories = affinity.shape
    expected = affinity.sum(0) / affinity.sum() * samples
    lower, upper = np.floor(expected * (1 - slack)), np.ceil(expected * (1 + slack))
    best = -1.0
    for choice in product(range(categories), repeat=samples):
        sizes = np.bincount(choice, minlength=categories)
        if (sizes >= lower).all() and (sizes <= upper).all():
            best = max(best, sum(affinity[row, column] for row, column in enumerate(choice)))
    return best


@pytest.mark.parametrize("seed", range(5))
def test_assignment_is_the_best_one(seed):
    affinity = np.random.default_rng(seed).integers(1, 6, (6, 3)).astype(float)
    chosen = assign_categories(affinity, slack=0.3)
    assert all(len(row) == 1 for row in chosen)
    assert sum(affinity[row, names[0]] for row, names in enumerate(chosen)) == pytest.approx(brute_force(affinity, 0.3))


def test_no_category_swallows_the_rest_and_several_per_sample():
    affinity = np.tile([5.0, 4.0], (10, 1))  # everything likes the first category best
    sizes = np.bincount([row[0] for row in assign_categories(affinity, slack=0.2)], minlength=2)
    assert sizes.tolist() == [7, 3]  # at most ⌈10·5/9·1.2⌉ = 7
    assert assign_categories(np.ones((3, 2)), per_sample=2) == [[0, 1]] * 3
    with pytest.raises(ValueError, match="per_sample: got 3"):
        assign_categories(np.ones((3, 2)), per_sample=3)
    with pytest.raises(ValueError, match="expected numbers ≥ 0"):
        assign_categories(-np.ones((3, 2)))


def test_categories_from_a_language_model():
    def script(prompt, draw):
        text = prompt[0]["content"]
        if text.startswith("Here are"):
            assert "1. p0" in text and "Name 2 categories" in text
            return "1. Algebra\n- Geometry\n\n* Algebra"
        return "1: 5\n2: 1 because\n7: 3\nnonsense" if "p0" in text else "garbage"

    generator = ScriptedGenerator(script)
    names = named_categories(generator, ["p0", "p1"], 2)
    assert names == ["Algebra", "Geometry"]
    np.testing.assert_allclose(scored_affinity(generator, ["p0", "p1"], names), [[5, 1], [1, 1]])
    with pytest.raises(ValueError, match="the model named 1 categories"):
        named_categories(ScriptedGenerator(lambda prompt, draw: "only"), ["p"], 2)


def test_accuracy_by_category_has_the_weakest_first():
    rows = accuracy_by_category([True, False, True, True], [["a"], ["a", "b"], ["b"], ["b"]])
    assert list(rows) == ["a", "b"]
    assert rows["a"]["accuracy"] == 0.5 and rows["b"]["accuracy"] == pytest.approx(2 / 3) and rows["b"]["samples"] == 3
