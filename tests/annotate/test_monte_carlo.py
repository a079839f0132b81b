"""Monte-Carlo labels against hand-worked ones."""

import json

import pytest
from annotate_fakes import BoxVerifier, ScriptedGenerator

from rlhf_prm.annotate import MonteCarloSettings, Rejection, monte_carlo
from rlhf_prm.annotate.config import AnnotateConfig
from rlhf_prm.annotate.items import given_solutions, sampled_solutions
from rlhf_prm.annotate.monte_carlo import StepEstimate, monte_carlo_task
from rlhf_prm.annotate.stages import MonteCarloStage
from rlhf_prm.annotate.store import Shards, StageStore
from rlhf_prm.generation.config import GeneratorConfig
from rlhf_prm.generation.requests import Generate, unit_seed
from rlhf_prm.generation.tasks import Verify

SETTINGS = MonteCarloSettings(num_completions=4, separator="|")
STEPS = ["a", "b", "c", "[7]"]
SCRIPT = {
    "P\n\na|": ["[7]", "[7]", "[7]", "[1]"],
    "P\n\na|b|": ["[2]", "[7]", "[1]", ""],
    "P\n\na|b|c|": ["[2]", "[3]", "[1]", "no"],
    "Q\n\na|": ["[7]"] * 4,
    "Q\n\na|b|": ["[7]"] * 4,
    "Q\n\na|b|c|": ["[7]", "[7]", "[7]", "x"],
}


def test_labels_stop_at_the_first_step_without_a_hit():
    generator = ScriptedGenerator(SCRIPT)
    bad, good = monte_carlo(["P", "Q"], [STEPS, STEPS], ["7", "7"], generator, BoxVerifier(), settings=SETTINGS)
    assert (bad.soft_labels, bad.labels, bad.first_error) == ([0.75, 0.25, 0.0], [True, True, False], 2)
    assert (good.soft_labels, good.labels, good.first_error) == ([1.0, 1.0, 0.75, 1.0], [True] * 4, -1)
    assert bad.row("P", STEPS)["labels"] == [True, True, False, False]


def test_going_on_labels_every_step_and_verifies_the_last_one_itself():
    settings = MonteCarloSettings(num_completions=4, separator="|", stop_at_first_miss=False)
    (labels,) = monte_carlo(["P"], [STEPS], ["7"], ScriptedGenerator(SCRIPT), BoxVerifier(), settings=settings)
    assert labels.soft_labels == [0.75, 0.25, 0.0, 1.0]
    (labels,) = monte_carlo(["P"], [STEPS], ["2"], ScriptedGenerator(SCRIPT), BoxVerifier(), settings=settings)
    assert labels.soft_labels == [0.0, 0.25, 0.25, 0.0]


def test_threshold_moves_the_hard_labels_and_the_stop():
    settings = MonteCarloSettings(num_completions=4, separator="|", threshold=0.25)
    (labels,) = monte_carlo(["P"], [STEPS], ["7"], ScriptedGenerator(SCRIPT), BoxVerifier(), settings=settings)
    assert (labels.soft_labels, labels.labels) == ([0.75, 0.25], [True, False])


def test_prefixes_of_all_solutions_share_calls():
    generator, verifier = ScriptedGenerator(SCRIPT), BoxVerifier()
    monte_carlo(["P", "Q"], [STEPS, STEPS], ["7", "7"], generator, verifier, settings=SETTINGS)
    assert [prompts for prompts, _, _ in generator.calls] == [
        ["P\n\na|", "Q\n\na|"],
        ["P\n\na|b|", "Q\n\na|b|"],
        ["P\n\na|b|c|", "Q\n\na|b|c|"],
    ]
    assert verifier.calls == 4
    seeds = [seed for _, _, batch in generator.calls for seed in batch]
    assert len(set(seeds)) == 6 and seeds[0] == unit_seed(0, "monte_carlo", 0, 0)


def test_result_does_not_depend_on_the_window():
    many = dict(problems=["P", "Q"] * 5, steps=[STEPS] * 10, solutions=["7"] * 10)
    wide, narrow = (
        monte_carlo(**many, generator=ScriptedGenerator(SCRIPT), verifier=BoxVerifier(), settings=SETTINGS, window=w)
        for w in (100, 3)
    )
    assert wide == narrow


def test_a_bad_row_is_set_aside_with_its_reason():
    script = SCRIPT | {"long\n\na|": None}
    steps = [STEPS, STEPS, STEPS, []]
    results = monte_carlo(
        ["P", "long", "Q", "Q"],
        steps,
        ["7", "7", "?", "7"],
        ScriptedGenerator(script),
        BoxVerifier(),
        settings=SETTINGS,
    )
    assert results[0].first_error == 2
    assert results[1:] == [
        Rejection("too long"),
        Rejection("verifier: bad_gold"),
        Rejection("the solution has no steps"),
    ]


def test_known_estimates_are_not_asked_for_again():
    task = monte_carlo_task("k", "P\n\n", STEPS, "7", SETTINGS, known=[StepEstimate(0, 3, 4), StepEstimate(1, 1, 4)])
    request = next(task)
    assert isinstance(request, Generate) and request.prompt == "P\n\na|b|c|"
    finished = monte_carlo_task("k", "P\n\n", STEPS, "7", SETTINGS, known=[StepEstimate(0, 0, 4)])
    with pytest.raises(StopIteration) as stop:
        next(finished)
    assert stop.value.value.labels == [False]


def test_settings_say_what_is_wrong():
    with pytest.raises(ValueError, match="num_completions: got 0"):
        MonteCarloSettings(num_completions=0)
    with pytest.raises(ValueError, match="threshold: got 1"):
        MonteCarloSettings(threshold=1.0)


def prompts_asked_for(task) -> list[str]:
    """The prompts that a task generates from; every completion is correct."""
    prompts, answer = [], None
    try:
        while True:
            request = task.send(answer)
            answer = None
            if isinstance(request, Generate):
                prompts.append(request.prompt)
                answer = ["[7]"] * request.n
            elif isinstance(request, Verify):
                answer = BoxVerifier().verify(request.completions, ["7"] * len(request.completions))
    except StopIteration:
        return prompts


@pytest.mark.parametrize(
    ("row", "asked"),
    [
        ({"response": " Step 1: a.\nStep 2: b.\n\n\nStep 3: [7]"}, [" Step 1: a.\n", " Step 1: a.\nStep 2: b.\n\n\n"]),
        ({"steps": ["a", "b", "[7]"], "response": "not these"}, ["a\n\n", "a\n\nb\n\n"]),
    ],
)
def test_a_prefix_is_the_solutions_own_text(tmp_path, row, asked):
    """Steps that a pattern cut are not joined by a separator that the policy never wrote; a list of steps is."""
    path = tmp_path / "solutions.jsonl"
    path.write_text(json.dumps({"problem": "P?", "answer": "7"} | row) + "\n")
    completer = GeneratorConfig(
        model="m", template="plain", endpoints=["http://localhost:9/v1"], options={"send_ids": False}
    )
    config = AnnotateConfig(
        out=str(tmp_path), solutions=str(path), completer=completer, step_pattern=r"\n+", num_completions=2
    )
    [solution] = given_solutions(config)
    assert len(solution.steps) == 3
    stage = MonteCarloStage(config, {})
    prompt = completer.prompt_template()("P?")
    assert prompts_asked_for(stage.task(solution, [])) == [prompt + prefix for prefix in asked]


def test_sampled_responses_keep_their_text(tmp_path):
    record = {"id": "0000000.0", "prompt": "P", "solution": "7", "responses": ["a;\nb", " "]}
    with StageStore(tmp_path, {}, 10) as store:
        store.append(0, record)
    config = AnnotateConfig(out="", problems="x", step_pattern=";\n")
    first, blank = sampled_solutions(config, [Shards(tmp_path, 10)])
    assert (first.steps, first.text) == (["a", "b"], "a;\nb") and blank.steps == []
