"""Rows, labels and padding."""

import warnings

import pytest
from datasets import Dataset

from rlhf_prm.prm.texts import Rendered
from rlhf_prm.prm_training.data import IGNORE, StepCollator, encode_dataset, encode_row

OPTIONS = {"drop_after_error": True, "max_length": None, "soft": False}


def encode(problem: str, steps: list[str]) -> Rendered:
    """One token for the problem, two per step; the second is the step's end."""
    ids = [9] + [token for _ in steps for token in (1, 2)]
    return Rendered(ids, [2 * k + 2 for k in range(len(steps))], 1)


def row(labels, soft=None, steps=4):
    return {"prompt": "p", "completions": ["s"] * steps, "labels": labels, "soft_labels": soft}


def test_steps_after_the_first_error_are_cut_off_or_kept():
    labels = [True, False, True, False]
    dropped = encode_row(row(labels), encode, **OPTIONS)
    assert dropped == {
        "input_ids": [9, 1, 2, 1, 2], "step_ends": [2, 4], "step_labels": [1, 0], "first_error": 1, "cut": False,
        "length": 5,
    }  # fmt: skip
    kept = encode_row(row(labels), encode, **OPTIONS | {"drop_after_error": False})
    assert kept["step_labels"] == [1, 0, 1, 0] and kept["length"] == 9


def test_unlabelled_steps_are_read_but_not_learnt_from():
    assert encode_row(row([True, None, True]), encode, **OPTIONS)["step_labels"] == [1, IGNORE, 1, IGNORE]
    with pytest.raises(ValueError, match="got 5 labels for 4 steps"):
        encode_row(row([True] * 5), encode, **OPTIONS)


def test_max_length_cuts_whole_steps():
    encoded = encode_row(row([True, True, True, True]), encode, **OPTIONS | {"max_length": 6})
    assert encoded == {
        "input_ids": [9, 1, 2, 1, 2, 1], "step_ends": [2, 4], "step_labels": [1, 1], "first_error": -1, "cut": True,
        "length": 6,
    }  # fmt: skip


@pytest.mark.parametrize("drop", [True, False])
def test_a_first_error_that_is_cut_off_is_known(drop):
    """It is counted in labelled steps, as evaluation counts predictions."""
    options = OPTIONS | {"max_length": 6, "drop_after_error": drop}
    encoded = encode_row(row([True, None, True, False]), encode, **options)
    assert (encoded["step_labels"], encoded["first_error"]) == ([1, IGNORE], 2)
    assert encode_row(row([None, False, True, True]), encode, **options)["first_error"] == 0


def test_cut_and_dropped_rows_are_counted_once():
    labels = [True, True, True, False], [True] * 4, [True], [None, None, True]
    rows = Dataset.from_list([row(given, steps=len(given)) for given in labels])
    with pytest.warns(UserWarning) as caught:
        assert len(encode_dataset(rows, encode, "eval", **OPTIONS | {"max_length": 6})) == 3
    assert [str(one.message) for one in caught] == [
        "the eval dataset has 4 rows: 2 lose their last steps to max_length=6, 1 of them their first error, which "
        "counts as missed in an evaluation; raise max_length to keep them; 1 have no labelled step within max_length=6 "
        "and are left out"
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encode_dataset(rows, encode, "eval", **OPTIONS)


def test_soft_labels_follow_the_cut_and_must_be_there():
    soft = OPTIONS | {"soft": True}
    assert encode_row(row([True, False], [0.5, 0.0, 0.9]), encode, **soft)["soft_labels"] == [0.5, 0.0]
    with pytest.raises(ValueError, match="has none"):
        encode_row(row([True, False], [0.5]), encode, **soft)
    with pytest.raises(ValueError, match="has none"):
        encode_row(row([True, False]), encode, **soft)


def test_dataset_errors_and_dropped_rows():
    rows = Dataset.from_list([row([True]), row([None]), row([])])
    assert len(encode_dataset(rows, encode, "train", **OPTIONS)) == 1
    with pytest.raises(ValueError, match="no row of the eval dataset has a labelled step within max_length=2"):
        encode_dataset(rows, encode, "eval", **OPTIONS | {"max_length": 2})
    with pytest.raises(ValueError, match="train dataset lacks labels"):
        encode_dataset(rows.remove_columns("labels"), encode, "train", **OPTIONS)


def test_collator_pads_tokens_and_steps_apart():
    rows = [encode_row(row([True], steps=1), encode, **OPTIONS), encode_row(row([True, False]), encode, **OPTIONS)]
    batch = {name: tensor.tolist() for name, tensor in StepCollator(0)(rows).items()}
    assert batch == {
        "input_ids": [[9, 1, 2, 0, 0], [9, 1, 2, 1, 2]],
        "attention_mask": [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]],
        "step_ends": [[2, 0], [2, 4]],
        "labels": [[1, IGNORE], [1, 0]],
        "first_errors": [-1, 1],
    }
