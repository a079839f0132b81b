"""ThinkPRM, GenPRM and R-PRM: how steps are shown, where the verdict is read, with and without token probabilities."""

import math

import pytest

from rlhf_prm.generation.requests import GenerationError
from rlhf_prm.judges.families import GENERATIVE, family_named_in
from rlhf_prm.judges.load import load_judge
from tests.judges.scripted_judge import Scripted

STEPS = ["one", "two", "three"]
BOXED = "Step {}: fine. The step is \\boxed{{{}}}\n"


class Telling(Scripted):
    """Tells probabilities too: ``chances(prompt)`` is that of the first choice."""

    def __init__(self, script, chances):
        super().__init__(script)
        self.chances, self.chosen = chances, []

    def choose(self, prompts, choices):
        self.chosen += [(prompt, choices) for prompt in prompts]
        return [[self.chances(prompt), 1 - self.chances(prompt)] for prompt in prompts]


def critique(*verdicts):
    return "".join(BOXED.format(n, verdict) for n, verdict in enumerate(verdicts, 1))


def same(got, wanted):
    assert len(got) == len(wanted)
    for row, expected in zip(got, wanted, strict=True):
        assert row == pytest.approx(expected, nan_ok=True), (got, wanted)


def test_families_are_known_by_their_names():
    names = {"launch/ThinkPRM-14B": "thinkprm", "GenPRM/GenPRM-7B": "genprm", "kevinpro/R-PRM-7B-DPO": "r_prm"}
    assert {name: family_named_in(name).name for name in names} == names
    assert family_named_in("Qwen/Qwen2.5-7B-Instruct") is None
    judge = load_judge("launch/ThinkPRM-1.5B", generator=Scripted(lambda _: critique("correct")))
    assert judge.reader.settings["form"] == "thinkprm"
    assert load_judge("m", generator=Scripted(""), form="genprm").reader.scope == "dialogue"


def test_thinkprm_by_votes():
    said = [critique("correct", "incorrect", "correct"), critique("correct", "correct", "correct")]
    generator = Scripted(lambda _: said)
    judge = load_judge("ThinkPRM", generator=generator, votes=2)
    same(judge.score(["What?"], [STEPS]), [[1.0, 0.5, 1.0]])


def test_thinkprm_is_shown_numbered_steps_and_its_answer_is_begun():
    seen = []

    class Looking(Scripted):
        def generate(self, prompts, n, *, seed=None, stop=None):
            seen.extend(prompts)
            return super().generate(prompts, n, seed=seed, stop=stop)

    load_judge("ThinkPRM", generator=Looking(lambda _: critique("correct", "correct"))).score(
        ["{steps}?"], [["a", "Step 2: b"]]
    )
    user, begun = seen[0]
    assert "[Math Problem]\n\n{steps}?\n\n[Solution]\n\nStep 1: a\nStep 2: b\n\nReview" in user["content"]
    assert begun == {"role": "assistant", "content": "Let's verify step by step:"}


def test_thinkprm_by_the_probability_of_the_whole_prefix():
    """It is asked behind the last verdict that counts, and scores the step of that verdict."""
    generator = Telling(lambda _: " " + critique("correct", "incorrect") + "So it fails.", lambda prompt: 0.2)
    judge = load_judge("ThinkPRM", generator=generator)
    same(judge.score(["p"], [STEPS]), [[1.0, 0.2, math.nan]])
    ((prompt, choices),) = generator.chosen
    assert choices == (" Yes", " No")
    assert prompt[-1]["content"].endswith("\\boxed{incorrect}\nIs the solution correct?")


@pytest.mark.parametrize("said", ["", "All fine.", critique("correct"), critique(*["correct"] * 4), "\\boxed{7}"])
def test_thinkprm_that_cannot_be_read(said):
    judge = load_judge("ThinkPRM", generator=Scripted(lambda _: said))
    same(judge.score(["p"], [STEPS]), [[math.nan] * 3])
    assert judge.stats.judge_unreadable == 1


def test_genprm_is_a_dialogue_and_tells_a_probability():
    seen = []

    class Looking(Telling):
        def generate(self, prompts, n, *, seed=None, stop=None):
            seen.extend((prompt, stop) for prompt in prompts)
            return super().generate(prompts, n, seed=seed, stop=stop)

    generator = Looking(
        lambda text: "I check it.", lambda prompt: 0.9 if "Paragraph 1" in prompt[-1]["content"] else 0.3
    )
    judge = load_judge("GenPRM", generator=generator)
    same(judge.score(["p"], [["a", "b"]]), [[0.9, 0.3]])
    (first, stop), (second, _) = seen
    assert stop == ["</analyze>"] and [m["role"] for m in first] == ["system", "user", "assistant"]
    assert first[1]["content"] == "p\na" and first[2]["content"].endswith("Paragraph 1 step by step: ")
    assert [m["role"] for m in second] == ["system", "user", "assistant", "user", "assistant"]
    assert second[2]["content"].endswith("I check it.</analyze>\n<output>\n**Judgement**: $\\boxed{Yes}$\n</output>\n")
    assert second[3]["content"] == "b" and second[4]["content"].endswith("Paragraph 2 step by step: ")
    assert generator.chosen[0][1] == ("Yes", "No") and generator.chosen[0][0][-1]["content"].endswith("$\\boxed{")


def test_genprm_without_probabilities_says_yes_or_no():
    def script(text):
        return ["Yes}$", "No}$"][text.count("Paragraph 2")] if text.endswith("boxed{") else "I check it."

    judge = load_judge("GenPRM", generator=Scripted(script))
    same(judge.score(["p"], [["a", "b"]]), [[1.0, 0.0]])
    assert judge.stats.judge_calls == 4


def test_equal_beginnings_are_asked_about_once():
    """Two rollouts with the same first step: 3 prefixes, not 4."""
    generator = Telling(lambda text: "I check it.", lambda prompt: 0.75)
    judge = load_judge("GenPRM", generator=generator, votes=2)
    same(judge.score(["p", "p"], [["a", "b"], ["a", "c"]]), [[0.75, 0.75]] * 2)
    assert judge.stats.judge_calls == 6 and judge.stats.judge_duplicates == 2
    judge.score(["p"], [["a", "b", "d"]])
    assert judge.stats.judge_calls == 8 and judge.stats.judge_cache_hits == 4


def test_a_dialogue_that_breaks_off_leaves_the_later_steps_unscored():
    def script(text):
        return GenerationError("too long") if "Paragraph 2" in text else "I check it."

    judge = load_judge("GenPRM", generator=Telling(script, lambda prompt: 0.9))
    same(judge.score(["p"], [STEPS]), [[0.9, math.nan, math.nan]])
    assert (judge.stats.judge_failed, judge.stats.judge_unscored_steps) == (1, 2)


def test_rprm_asks_for_each_step_with_those_before_it():
    generator = Telling(lambda text: "Analysis.\nVerification: Is the step correct (Yes/No)? No", lambda prompt: 0.6)
    judge = load_judge("R-PRM", generator=generator)
    same(judge.score(["p"], [["a", "b"]]), [[0.6, 0.6]])
    questions = [text for text, _ in generator.asked]
    assert (
        "Previous Steps: Since the Now Step is the first step" in questions[0]
        and "Now Step: Step 1: a\n" in questions[0]
    )
    assert "Question: p\nPrevious Steps: Step 1: a\nNow Step: Step 2: b\n" in questions[1]
    asked = generator.chosen[0][0][-1]["content"]
    assert asked == "Analysis.\nVerification: Is the step correct (Yes/No)?"
    without = load_judge("R-PRM", generator=Scripted(generator.script))
    same(without.score(["p"], [["a", "b"]]), [[0.0, 0.0]])


def test_rprm_without_its_question():
    """Where probabilities are told the question is put to it; otherwise nothing was said."""
    told = load_judge("R-PRM", generator=Telling(lambda _: "Long talk", lambda prompt: 0.8))
    same(told.score(["p"], [["a"]]), [[0.8]])
    assert told.generator.chosen[0][0][-1]["content"].endswith("Based on your analysis. Is the step correct (Yes/No)?")
    silent = load_judge("R-PRM", generator=Scripted(lambda _: "Long talk"))
    same(silent.score(["p"], [["a"]]), [[math.nan]])
    assert silent.stats.judge_unreadable == 1


def test_rows_of_graded_steps_take_what_most_votes_call_wrong_first(tmp_path):
    from tests.judges.test_judge_scorer import attached

    def chance(prompt):
        return 0.9 if "Now Step: Step 1:" in str(prompt) else 0.2

    judge = load_judge("R-PRM", generator=Telling(lambda _: "x Is the step correct (Yes/No)? Yes", chance))
    attached(judge, tmp_path)
    judge.score(["p"], [["a", "b", "c"]])
    from rlhf_prm.step_data import read_rows

    (row,) = read_rows(tmp_path / "judged.jsonl")
    assert row["labels"] == [True, False, False]
    resumed = load_judge("R-PRM", generator=Scripted(lambda _: pytest.fail("asked again")))
    attached(resumed, tmp_path)
    same(resumed.score(["p", "p"], [["a", "b", "c"], ["a"]]), [[0.9, 0.2, 0.2], [0.9]])


def test_every_family_tells_how_it_is_sampled():
    for family in GENERATIVE.values():
        assert family.sampling["max_tokens"] >= 2048 and 0 < family.sampling["temperature"] <= 1 and family.summary
