"""What the loss is given where tools and environments write into a rollout: their tokens earn and cost nothing."""

import pytest
import torch
from trl import GRPOTrainer

from rlhf_prm.rl.policy_tokens import policy_tokens
from rlhf_prm.steps import ToolResult
from tests.tiny import DigitVerifier, HashScorer
from tests.tiny_tools import Counter, add, call, counted, messages, tool_trainer


def inputs_of(trainer) -> dict[str, torch.Tensor]:
    """The first generation batch's inputs of the loss."""
    seen, trls = [], trainer._generate_and_score_completions

    def watched(rows):
        seen.append(trls(rows))
        return seen[-1]

    trainer._generate_and_score_completions = watched
    trainer.train()
    return seen[0]


def varied(conversation: str, turns: int) -> str:
    """Prompts differ in how far they count, and answers with them."""
    if turns < 1 + int(conversation[len("<u>count to ")]) % 2:
        return "so\n\n" + call("increment", by=turns + 1)
    return "done\n\nit is " + conversation[conversation.rindex("<t>") + 3]


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_tokens_of_tools_have_no_advantage_and_are_not_counted(tmp_path, monkeypatch, algorithm):
    settings = {"max_steps": 1, "beta": 0.1}
    arguments = {"environment_factory": Counter, "reward_funcs": counted, "settings": settings}
    output = inputs_of(tool_trainer(algorithm, tmp_path, monkeypatch, varied, **arguments))
    tools = output["completion_mask"].bool() & (output["tool_mask"] == 0)
    assert tools.any() and (output["advantages"][tools] == 0).all()
    own = policy_tokens(output)
    assert (output["advantages"][own] != 0).any() and (output["advantages"][~own] == 0).all()
    assert int(output["num_items_in_batch"]) == int(own.sum())
    if algorithm == "ppo":
        assert (output["returns"][~own] == 0).all() and (output["old_values"][~own] == 0).all()


class Speaking(Counter):
    """Says a text of its own after each increment."""

    said = "one"

    def increment(self, by: int) -> str:
        """Adds to the count.

        Args:
            by: How much to add.
        """
        super().increment(by)
        return self.said


def says(text):
    return type("Speaking", (Speaking,), {"said": text})


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_no_gradient_goes_through_the_tokens_of_tools(tmp_path, monkeypatch, algorithm):
    """∂ loss / ∂ log π is 0 at them, whatever they say."""
    for text in ("one", "two"):
        arguments = {"environment_factory": says(text), "reward_funcs": counted, "settings": {"max_steps": 1}}
        trainer = tool_trainer(algorithm, tmp_path / text, monkeypatch, varied_answers, **arguments)
        leaves, forward = [], GRPOTrainer._get_per_token_logps_and_entropies

        def as_leaves(self, *args, leaves=leaves, forward=forward, **kwargs):
            log_probs, *others = forward(self, *args, **kwargs)
            if torch.is_grad_enabled():
                log_probs = log_probs.detach().requires_grad_()
                leaves.append(log_probs)
            return log_probs, *others

        output = None
        with monkeypatch.context() as patched:
            trainer.model.train()
            output = inputs_of_one_batch(trainer)
            patched.setattr(GRPOTrainer, "_get_per_token_logps_and_entropies", as_leaves)
            trainer.current_gradient_accumulation_steps = 1
            trainer._compute_loss(trainer.model, output).backward()
        own, gradient = policy_tokens(output), leaves[0].grad
        assert (gradient[own] != 0).any() and (gradient[~own] == 0).all()


def varied_answers(conversation, turns):
    return call("increment", by=int(conversation[len("<u>count to ")])) if not turns else "done"


def inputs_of_one_batch(trainer):
    rows = [trainer.train_dataset[i // 4] for i in range(8)]
    return trainer._generate_and_score_completions(rows)


def test_what_a_tool_says_moves_no_advantage_but_through_the_scorer(tmp_path, monkeypatch):
    """Same length, other text, a scorer that does not read it: the same advantages."""
    found = []
    for text in ("one", "two"):
        arguments = {"environment_factory": says(text), "reward_funcs": counted, "step_scorer": Deaf()}
        trainer = tool_trainer("grpo", tmp_path / text, monkeypatch, varied_answers, **arguments)
        found.append(inputs_of_one_batch(trainer))
    assert torch.equal(found[0]["advantages"], found[1]["advantages"])
    assert not torch.equal(found[0]["completion_ids"], found[1]["completion_ids"])


class Deaf(HashScorer):
    """Reads what the policy wrote only."""

    def score(self, problems, steps):
        own = [["" if isinstance(step, ToolResult) else step for step in row] for row in steps]
        return super().score(problems, own)


@pytest.mark.parametrize(("gamma", "lam", "whiten"), [(1.0, 1.0, False), (0.9, 0.8, False), (0.9, 0.8, True)])
def test_ppo_against_a_slow_reference(tmp_path, monkeypatch, gamma, lam, whiten):
    """Token by token over the policy's own tokens of every row, in Python."""
    settings = dict(max_steps=1, beta=0.1, gamma=gamma, lam=lam, whiten_advantages=whiten, shaping="raw_scores")
    arguments = {"environment_factory": Counter, "reward_funcs": counted, "settings": settings}
    trainer = tool_trainer("ppo", tmp_path, monkeypatch, varied, **arguments)
    torch.nn.init.normal_(trainer.model.critic.head.weight)
    seen, trls = [], trainer._old_policy
    monkeypatch.setattr(trainer, "_old_policy", lambda output: seen.append(trls(output)) or seen[0])
    trainer.model.train()
    output = inputs_of_one_batch(trainer)
    (log_probs, values), rows = seen[0], trainer.last_rollouts.rows
    wanted, returns = torch.zeros_like(values), torch.zeros_like(values)
    for i, row in enumerate(rows):
        places = [t for t in range(values.shape[1]) if output["completion_mask"][i, t] and output["tool_mask"][i, t]]
        kl = [float(log_probs[i, t] - output["ref_per_token_logps"][i, t]) for t in places]
        rewards = [-0.1 * one for one in kl]
        end = 0
        for length, score in zip(row.lengths, row.scores, strict=True):
            end += length
            rewards[end - 1] += 0.5 * score
        rewards[-1] += float(trainer.last_rollouts.rollouts.outcome_rewards[i])
        ahead, next_value = 0.0, 0.0
        for reward, t in reversed(list(zip(rewards, places, strict=True))):
            ahead = reward + gamma * next_value - float(values[i, t]) + gamma * lam * ahead
            next_value = float(values[i, t])
            wanted[i, t], returns[i, t] = ahead, ahead + next_value
    own = policy_tokens(output)
    if whiten:
        wanted = torch.where(own, (wanted - wanted[own].mean()) / wanted[own].std(), 0)
    torch.testing.assert_close(output["advantages"], wanted, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(output["returns"], returns, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_without_a_call_the_numbers_are_those_without_tools(tmp_path, monkeypatch, algorithm):
    """To the last bit: losses, and the weights after two updates. The tiny policy writes for itself, no calls."""
    ends = {}
    for name, tools in (("tools", {"tools": [add]}), ("alone", {})):
        arguments = {"verifier": DigitVerifier(), "train_dataset": messages(solution=["7"] * 8), **tools}
        arguments["settings"] = {"max_completion_length": 60}
        trainer = tool_trainer(algorithm, tmp_path / name, monkeypatch, None, **arguments)
        trainer.train()
        assert bool(trainer.tools) == bool(tools)
        losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
        ends[name] = losses, torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
    assert ends["tools"][0] == ends["alone"][0] and torch.equal(ends["tools"][1], ends["alone"][1])
