"""The tool world: what the calculator answers, how rollouts are cut, scored and paid, and that training learns."""

import inspect
import math

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf_prm.toyworld.calculator import Calculator
from rlhf_prm.toyworld.policy import IGNORED
from rlhf_prm.toyworld.problems import ChainProblem
from rlhf_prm.toyworld.quick_grpo import Regime, policy_loss
from rlhf_prm.toyworld.tool_grpo import on_the_policys_tokens, tool_grpo, turn_rollouts
from rlhf_prm.toyworld.tool_sampler import ToolSampler
from rlhf_prm.toyworld.tool_turns import ToolRollout, called, exact_turn_scores, tool_text, verdict
from rlhf_prm.toyworld.tool_world import ToolWorldSettings, _tokens, build_tool_world, tool_tokenizer

PROBLEM = ChainProblem(7, (("Add", 3), ("Times", 4), ("Minus", 2)))  # 0, 0, 8
NAN = float("nan")


def calculator(**shares):
    made = Calculator(**({"error_share": 0.0, "timeout_share": 0.0} | shares))
    made.reset(prompt=PROBLEM.prompt, solution="8")
    return made


def rollout(*turns, environment=None, answered=True):
    """A rollout whose turns end with calls, as the sampler would make it; each call has been answered."""
    environment, tokenizer = environment or calculator(), tool_tokenizer()
    ids, written, lengths = [], [], []
    for index, turn in enumerate(turns):
        own = tokenizer(turn).input_ids
        ids, written, lengths = ids + own, written + [True] * len(own), [*lengths, len(own)]
        if turn.endswith(" ?"):
            told = tokenizer(tool_text(environment.calculate(called(turn)))).input_ids
            if index + 1 < len(turns) or answered:
                ids, written = ids + told, written + [False] * len(told)
    return ToolRollout(ids, written, list(turns), lengths, environment)


def test_the_calculator_tells_single_facts():
    tool = calculator()
    assert [tool.calculate(q) for q in ("7 Add 3", " 0 Times 4", "9 Minus 2")] == ["0", "0", "7"]
    # A fact of the chain; the next one; none of it.
    assert tool.turn_rewards() == [1.0, 1.0, 0.0]
    assert tool.state_keys() == ["start", "1 7 Add 3 0", "2 0 Times 4 0", "2 9 Minus 2 7"]


@pytest.mark.parametrize("question", ["7 Add 3 Times 4", "Answer: \\boxed{8}", "", "7 Plus 3", "17 Add 3", "?"])
def test_whole_chains_answers_and_nonsense_are_errors(question):
    tool = calculator()
    assert tool.calculate(question) == "error" and tool.turn_rewards() == [0.0]


def test_asking_the_same_again_earns_nothing():
    tool = calculator()
    tool.calculate("7 Add 3"), tool.calculate("7 Add 3")
    assert tool.turn_rewards() == [1.0, 0.0]


def test_a_tool_that_fails_says_so_and_nothing_of_the_turn():
    assert calculator(timeout_share=1.0).calculate("7 Add 3") == "timeout"
    broken = calculator(error_share=1.0)
    assert broken.calculate("7 Add 3") == "error" and math.isnan(broken.turn_rewards()[0])
    broken.calculate("8 Add 2")
    assert broken.turn_rewards()[1] == 0.0  # a wrong question is wrong all the same
    shares = [calculator(error_share=0.3, seed=seed).calculate("7 Add 3") for seed in range(300)]
    assert 0.2 < shares.count("error") / 300 < 0.4


def test_it_has_the_form_of_trls_environments():
    """Public methods are tools: TRL makes their schema from the signature and the docstring."""
    public = {name for name, _ in inspect.getmembers(Calculator, inspect.isfunction) if not name.startswith("_")}
    assert public == {"reset", "calculate", "turn_rewards", "state_keys"}
    assert "Args:" in Calculator.calculate.__doc__ and Calculator.calculate.__annotations__["question"] is str
    talk = Calculator()
    talk.reset(prompt=[{"role": "user", "content": PROBLEM.prompt}])
    assert talk.state_keys() == ["start"]


def test_shares_that_are_none_are_refused():
    with pytest.raises(ValueError, match=r"error_share=0.7 and timeout_share=0.6, expected shares that make up"):
        Calculator(error_share=0.7, timeout_share=0.6)
    with pytest.raises(ValueError, match=r"operations=\(3, 2\) and price=0.02"):
        ToolWorldSettings(operations=(3, 2))
    with pytest.raises(ValueError, match="sft_updates: got 0"):
        ToolWorldSettings(sft_updates=0)


ASKED = "Ask: 7 Add 3 ?"
REST = "7 Add 3 = 0\n\n0 Times 4 = 0\n\n0 Minus 2 = 8\n\nAnswer: \\boxed{8}"


@pytest.mark.parametrize(
    ("turns", "right", "exact"),
    [
        ((REST,), 1.0, [1.0]),
        ((ASKED, REST), 1.0, [1.0, 1.0]),
        ((ASKED, REST.replace("0 Times 4 = 0", "0 Times 4 = 3")), 1.0, [1.0, 0.0]),
        (("7 Add 3 = 1\n\nAsk: 1 Times 4 ?", "1 Times 4 = 4\n\n4 Minus 2 = 2\n\nAnswer: \\boxed{2}"), 0.0, [0.0, 0.0]),
        ((ASKED, ASKED, REST), 1.0, [1.0, 0.0, 1.0]),
        ((ASKED, "7 Add 3 = 0"), 0.0, [1.0, 0.0]),  # it never answers
    ],
)
def test_verdict_and_exact_scores_of_turns(turns, right, exact):
    one = rollout(*turns)
    assert verdict(PROBLEM, one) == right and exact_turn_scores(PROBLEM, one) == exact


@pytest.mark.parametrize(
    "turns",
    [
        ("Ask: Answer: \\boxed{8} ?",),  # into a call
        ("Ask: Answer: \\boxed{8} ?", "7 Add 3 = 0"),
        ("Answer: \\boxed{8}\n\nAsk: 7 Add 3 ?", ""),  # before a call: not the last word
        ("7 Add 3 = 0\n\nAsk: Answer: \\boxed{8}",),  # into a call that was not made
    ],
)
def test_an_answer_stuffed_into_a_call_is_none(turns):
    assert verdict(PROBLEM, rollout(*turns)) == 0.0


def test_an_environment_that_writes_the_gold_answer_earns_nothing():
    class Helpful(Calculator):
        def calculate(self, question: str) -> str:
            super().calculate(question)
            return "Answer: \\boxed{8}"

    helpful = Helpful()
    helpful.reset(PROBLEM.prompt)
    one = rollout(ASKED, "0 Times 4 = 0", environment=helpful)
    assert "\\boxed{8}" in tool_tokenizer().decode(one.ids) and verdict(PROBLEM, one) == 0.0


def test_a_right_answer_pays_less_the_price_of_its_calls_and_a_wrong_one_nothing():
    settings = ToolWorldSettings(price=0.1)
    assert settings.outcome(PROBLEM, rollout(ASKED, ASKED, REST)) == pytest.approx(0.8)
    assert settings.outcome(PROBLEM, rollout(ASKED)) == 0.0


def test_turns_become_steps():
    group = [rollout(ASKED, REST), rollout("Ask: 9 Add 3 ?", "Ask: 7 Add 3 ?", REST)]
    batch = turn_rollouts(ToolWorldSettings(price=0.0), [PROBLEM] * 2, group, "environment", 2)
    assert batch.step_mask.tolist() == [[True, True, False], [True, True, True]]
    assert batch.scored.tolist() == [[True, False, False], [True, True, False]]  # nobody scores the last turn
    assert batch.step_scores[0, 0] == 1.0 and batch.step_scores[1, 0] == 0.0 and batch.verdicts.tolist() == [1.0, 1.0]
    assert batch.step_lengths.tolist() == [[*group[0].turn_lengths, 0], group[1].turn_lengths]
    keys = batch.state_keys
    assert keys[0, 0] == keys[1, 0] and keys[0, 1] == keys[1, 2] and keys[1, 1] != keys[0, 1]
    exact = turn_rollouts(ToolWorldSettings(), [PROBLEM] * 2, group, "oracle", 2)
    assert exact.scored.equal(exact.step_mask)
    silent = turn_rollouts(ToolWorldSettings(), [PROBLEM] * 2, group, "none", 2)
    assert not silent.scored.any()


def test_advantages_stand_at_the_policys_tokens():
    one = rollout(ASKED, REST)
    spread = on_the_policys_tokens(torch.tensor([[2.0, -1.0]]), [one])
    own = torch.tensor(one.written)
    assert not spread[0][~own].any() and spread[0][own].tolist() == [2.0] * 5 + [-1.0] * (int(own.sum()) - 5)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    sizes = {"train_problems": 40, "eval_problems": 100, "sft_updates": 60, "sft_batch": 32}
    return build_tool_world(ToolWorldSettings(operations=(2, 3), **sizes), tmp_path_factory.mktemp("tools"))


@pytest.fixture(scope="module")
def policy(world):
    model = AutoModelForCausalLM.from_pretrained(world.policy_path, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(world.policy_path)


def sampled(world, policy):
    problems = world.eval_problems[:20]
    sampler = ToolSampler(*policy, max_new_tokens=90)
    environments = [world.settings.environment(p, i) for i, p in enumerate(p for p in problems for _ in range(3))]
    ids = policy[1]([problem.prompt for problem in problems]).input_ids
    return sampler.rollouts(ids, 3, environments, seed=0)


def test_results_are_fed_in_where_the_policy_calls(world, policy):
    rollouts = sampled(world, policy)
    assert sum(one.calls for one in rollouts) > 10
    again = sampled(world, policy)
    assert [one.ids for one in again] == [one.ids for one in rollouts]
    tokenizer = policy[1]
    for one in rollouts:
        assert len(one.ids) == len(one.written) <= 90 and sum(one.written) == sum(one.turn_lengths)
        assert [turn.endswith(" ?") for turn in one.turns[:-1]] == [True] * (len(one.turns) - 1)
        told = tokenizer.decode([t for t, own in zip(one.ids, one.written, strict=True) if not own])
        answers = [key.split()[-1] for key in one.environment.state_keys()[1:]]
        assert "".join(map(tool_text, answers)).startswith(told)


def test_greedy_tokens_are_the_models_own_given_the_results(world, policy):
    """Every token of the policy is the likeliest after the whole text so far, the tool's words included."""
    model, tokenizer = policy
    problems = world.eval_problems[:20]
    begun = tokenizer([problem.prompt + "Ask: " for problem in problems]).input_ids  # greedily it would rarely ask
    environments = [world.settings.environment(problem, i) for i, problem in enumerate(problems)]
    rollouts = ToolSampler(model, tokenizer, max_new_tokens=60, temperature=0.0).rollouts(begun, 1, environments)
    assert sum(one.calls for one in rollouts) >= 10
    for prompt, one in zip(begun, rollouts, strict=True):
        logits = model(torch.tensor([[*prompt, *one.ids]])).logits[0, len(prompt) - 1 : -1]
        own = torch.tensor(one.written)
        assert torch.equal(logits.argmax(-1)[own], torch.tensor(one.ids)[own])


def test_demonstrations_do_not_teach_what_the_tool_says():
    tokenizer = tool_tokenizer()
    ids, labels = _tokens(tokenizer, PROBLEM.prompt, [(ASKED, True), (tool_text("0"), False), (REST, True)])
    learned = [token for token, label in zip(ids, labels, strict=True) if label != IGNORED]
    assert tokenizer.decode(learned, skip_special_tokens=True) == ASKED + REST
    assert all(label in (IGNORED, token) for token, label in zip(ids, labels, strict=True)) and ids[-1] == labels[-1]


def test_the_loss_leaves_out_what_the_tool_wrote(policy):
    """By hand over the policy's tokens; other words of the tool change it as context only, their advantage never."""
    model, tokenizer = policy
    prompt, one = tokenizer(PROBLEM.prompt).input_ids, rollout(ASKED, REST)
    advantages = torch.linspace(-1, 1, len(one.ids))[None]
    with torch.no_grad():
        loss = policy_loss(model, [prompt], [one.ids], advantages, tokenizer.pad_token_id, [one.written])
        logs = model(torch.tensor([[*prompt, *one.ids]])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        chosen = logs.gather(-1, torch.tensor(one.ids)[:, None])[:, 0]
        own = torch.tensor(one.written)
        assert loss.item() == pytest.approx(-float((advantages[0] * chosen)[own].sum() / own.sum()), rel=1e-5)
        garbage = torch.where(own[None], advantages, 1e6)
        assert policy_loss(model, [prompt], [one.ids], garbage, tokenizer.pad_token_id, [one.written]) == loss
        everything = [[True] * len(one.ids)]
        plain = policy_loss(model, [prompt], [one.ids], advantages, tokenizer.pad_token_id)
        assert policy_loss(model, [prompt], [one.ids], advantages, tokenizer.pad_token_id, everything) == plain != loss


SHORT = Regime(max_steps=2, prompts=4, num_generations=4, warmup_steps=0)


@pytest.mark.parametrize(
    ("scores", "method"), [("none", "outcome"), ("none", "gigpo"), ("environment", "mt_grpo"), ("oracle", "trusted")]
)
def test_every_kind_of_run(world, scores, method):
    told = tool_grpo(world, scores, method, regime=SHORT)
    assert len(told["outcomes"]) == 2 and told["generated_tokens"] > 0 and told["calls"] > 0
    assert 0 <= told["process_accuracy"] <= told["accuracy"] <= 1 and 0 <= told["useful"] <= 1
    if method == "trusted":
        again = tool_grpo(world, scores, method, regime=SHORT)
        assert {k: v for k, v in again.items() if k != "seconds"} == {k: v for k, v in told.items() if k != "seconds"}


def test_an_unknown_source_of_scores_is_refused(world):
    with pytest.raises(ValueError, match="scores: got 'prm', expected one of none, environment, oracle"):
        tool_grpo(world, "prm", "outcome")
