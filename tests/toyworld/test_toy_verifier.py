import pytest

from rlhf_prm.toyworld.verifier import ExactMatchVerifier

RIGHT = "7 Add 5 = 2\n\nAnswer: \\boxed{2}"


@pytest.mark.parametrize(
    ("completion", "solution", "reward", "status", "answer"),
    [
        (RIGHT, "2", 1.0, "correct", "2"),
        (RIGHT, "\\boxed{2}", 1.0, "correct", "2"),
        (RIGHT, "3", 0.0, "incorrect", "2"),
        ("Answer: \\boxed{3}\n\nAnswer: \\boxed{2}", "2", 1.0, "correct", "2"),
        ("7 Add 5 = 2", "2", 0.0, "no_answer", None),
        ("Answer: \\boxed{2", "2", 0.0, "no_answer", None),
        ("", "2", 0.0, "no_answer", None),
        (RIGHT, None, None, "bad_gold", "2"),
        (RIGHT, " ", None, "bad_gold", "2"),
    ],
)
def test_verdicts(completion, solution, reward, status, answer):
    (verdict,) = ExactMatchVerifier().verify([completion], [solution])
    assert (verdict.reward, verdict.status, verdict.answer) == (reward, status, answer)


def test_one_verdict_per_completion_in_order():
    verdicts = ExactMatchVerifier().verify([RIGHT, RIGHT, ""], ["2", "1", None])
    assert [verdict.status for verdict in verdicts] == ["correct", "incorrect", "bad_gold"]
    with pytest.raises(ValueError):
        ExactMatchVerifier().verify([RIGHT], [])
