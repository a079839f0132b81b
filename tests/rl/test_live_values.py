"""LiveMonteCarloScorer: the values themselves by hand, then the policy of a trainer behind them."""

import math
from dataclasses import replace

import pytest
import torch

from reward import METHODS
from reward.verifier import Verdict
from rlhf_prm.generation.requests import Sample
from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.rl.live_values import LiveMonteCarloScorer, PolicyAccess
from rlhf_prm.rl.policy_sampling import Continuation, GeneratorSampler, Prefix, TrainerSampler
from rlhf_prm.rl.ppo import ProcessPPOTrainer
from rlhf_prm.rl.ppo_config import ProcessPPOConfig
from rlhf_prm.rl.rollout_scoring import RolloutScoring, step_rollouts
from rlhf_prm.rl.scorers import PolicyRollout
from rlhf_prm.steps import StepSplitter, step_lengths
from tests.tiny import DigitVerifier, HashScorer, tiny_config, tiny_dataset, tiny_policy, tiny_tokenizer

TOKENIZER = tiny_tokenizer()


def ids_of(text: str) -> list[int]:
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


class KnownChances:
    """A policy that ends right (a 7) in so many of every 4 continuations of a prefix, by the prefix's text."""

    def __init__(self, right_of_4: dict[str, int]) -> None:
        self.right_of_4, self.asked, self.seeds = right_of_4, [], []

    def continuations(self, prefixes, n, seed):
        self.asked.append(prefixes)
        self.seeds.append(seed)
        return [
            [Continuation(text + (" 7" if j % 4 < self.right_of_4[text] else " 8"), 1) for j in range(n)]
            for text in (TOKENIZER.decode(list(prefix.ids)) for prefix in prefixes)
        ]


def scorer_on(sampler, verifier=None, *, training=True, limit=20, **settings) -> LiveMonteCarloScorer:
    scorer = LiveMonteCarloScorer(**{"num_completions": 4} | settings)
    scorer.policy = PolicyAccess(
        sampler=sampler,
        verifier=verifier or DigitVerifier(),
        prompt_ids=lambda prompts: [ids_of(prompt) for prompt in prompts],
        max_completion_length=limit,
        seed=lambda: 5,
        training=lambda: training,
    )
    return scorer


def scored(scorer, texts: list[str], solutions: list[str | None], prompts: list[str] | None = None):
    scoring = RolloutScoring(StepSplitter("\n\n"), TOKENIZER, scorer, DigitVerifier())
    prompts = prompts or [" 3 + 4 ="] * len(texts)
    return scoring(prompts, prompts, solutions, [ids_of(text) for text in texts]), scoring


THREE = [" a\n\n b\n\n 7", " a\n\n c\n\n 7", " d\n\n e\n\n 8"]
CHANCES = {" a\n\n": 3, " a\n\n b\n\n": 1, " a\n\n c\n\n": 4, " d\n\n": 2, " d\n\n e\n\n": 0}


def test_values_by_hand_and_the_method_on_them():
    """V = (.75, .25, o = 1) over V_0 = .5: A = (.25, −.5, .75), which sums to o − V_0."""
    sampler = KnownChances(CHANCES)
    rows, scoring = scored(scorer_on(sampler), THREE, ["7"] * 3)
    assert [row.scores for row in rows] == [[0.75, 0.25, 1.0], [0.75, 1.0, 1.0], [0.5, 0.0, 0.0]]
    outcomes = torch.tensor([row.reward for row in rows])
    advantages = METHODS["vine"](step_rollouts(rows, outcomes, 3))
    expected = torch.tensor([[0.25, -0.5, 0.75], [0.25, 0.25, 0.0], [-0.5, -0.5, 0.0]])
    torch.testing.assert_close(advantages, expected)
    torch.testing.assert_close(advantages.sum(1), outcomes - torch.tensor([0.5, 0.5, 1.0]))
    (prefixes,) = sampler.asked  # " a\n\n" is in two rollouts and sampled from once
    assert len(prefixes) == 5 and sampler.seeds == [5]
    assert [prefix.limit for prefix in prefixes] == [20 - len(prefix.ids) for prefix in prefixes]
    assert all(prefix.prompt_ids == tuple(ids_of(" 3 + 4 =")) for prefix in prefixes)
    stats = {"calls": 1, "prefixes": 5, "duplicates": 1, "completions": 20, "tokens": 20, "unscored_steps": 0}
    stats |= {"cache_hits": 0, "over_budget": 0}
    assert scoring.scorer_stats == stats


def test_a_budget_pays_for_early_steps_first_and_holds_for_an_update():
    """12 completions are 3 of the 5 prefixes: the two of one step, then the first of two."""
    sampler = KnownChances(CHANCES)
    scorer = scorer_on(sampler, budget_completions=12)
    rows, scoring = scored(scorer, THREE, ["7"] * 3)
    assert [row.scores[0] for row in rows] == [0.75, 0.75, 0.5] and rows[0].scores[1] == 0.25
    assert math.isnan(rows[1].scores[1]) and math.isnan(rows[2].scores[1])
    assert scoring.scorer_stats["over_budget"] == 2 and scoring.scorer_stats["completions"] == 12
    few = scorer_on(KnownChances(CHANCES), budget_tokens=4 * 18)  # a prefix of two tokens leaves 18 to each completion
    rows, _ = scored(few, THREE[:1], ["7"])
    assert rows[0].scores[0] == 0.75 and math.isnan(rows[0].scores[1])


def test_values_of_an_update_are_sampled_once():
    sampler = KnownChances(CHANCES)
    scorer, update = scorer_on(sampler, budget_completions=20), [3]
    scorer.policy = replace(scorer.policy, update=lambda: update[0])
    first, _ = scored(scorer, THREE, ["7"] * 3)
    again, scoring = scored(scorer, THREE[:2], ["7"] * 2)
    assert [row.scores for row in again] == [row.scores for row in first[:2]]
    assert sampler.asked[1] == [] and scoring.scorer_stats["cache_hits"] == 3
    update[0] = 4  # the policy has moved on
    moved, scoring = scored(scorer, THREE[:1], ["7"])
    assert len(sampler.asked[2]) == 2 and moved[0].scores == first[0].scores


def test_equal_prefixes_of_other_prompts_or_golds_are_sampled_apart():
    sampler = KnownChances(CHANCES)
    prompts = [" 3 + 4 =", " 3 + 4 =", " 1 + 4 ="]
    rows, _ = scored(scorer_on(sampler), [" a\n\n 7"] * 3, ["7", "8", "7"], prompts)
    assert [row.scores for row in rows] == [[0.75, 1.0], [0.25, 0.0], [0.75, 1.0]]
    assert len(sampler.asked[0]) == 3


def test_no_gold_no_values():
    sampler = KnownChances(CHANCES)
    scorer = scorer_on(sampler)
    rows, _ = scored(scorer, [THREE[0], THREE[2]], [None, "7"])
    assert all(map(math.isnan, rows[0].scores)) and len(rows[0].scores) == 3
    assert rows[1].scores == [0.5, 0.0, 0.0]
    assert len(sampler.asked[0]) == 2 and scorer.stats.unscored_steps == 3


def test_only_the_first_steps_are_sampled():
    sampler = KnownChances(CHANCES)
    rows, scoring = scored(scorer_on(sampler, max_steps=1), THREE, ["7"] * 3)
    assert [row.scores[0] for row in rows] == [0.75, 0.75, 0.5] and [row.scores[2] for row in rows] == [1, 1, 0]
    assert all(math.isnan(row.scores[1]) for row in rows)
    assert len(sampler.asked[0]) == 2 and scoring.scorer_stats["unscored_steps"] == 3


def test_one_step_rollouts_ask_for_nothing_but_take_part():
    """The sampler is called all the same: other ranks may have prefixes."""
    sampler = KnownChances({})
    rows, scoring = scored(scorer_on(sampler), [" 7", " 8"], ["7", "7"])
    assert [row.scores for row in rows] == [[1.0], [0.0]]
    assert sampler.asked == [[]] and scoring.scorer_stats["completions"] == 0


@pytest.mark.parametrize("settings, calls", [({}, 0), ({"in_evaluation": True}, 1)])
def test_evaluations_are_sampled_for_on_demand_only(settings, calls):
    sampler = KnownChances(CHANCES)
    rows, _ = scored(scorer_on(sampler, training=False, **settings), THREE, ["7"] * 3)
    assert len(sampler.asked) == calls and [row.scores[-1] for row in rows] == [1, 1, 0]
    assert math.isnan(rows[0].scores[0]) == (not calls)


def test_what_the_verifier_cannot_judge_is_left_out_of_the_mean():
    class Slow(DigitVerifier):
        def verify(self, completions, solutions):
            verdicts = super().verify(completions, solutions)
            return [Verdict(None, "timeout", None, 0.0) if i % 4 == 3 else v for i, v in enumerate(verdicts)]

    rows, _ = scored(scorer_on(KnownChances({" a\n\n": 1}), Slow()), [" a\n\n 7"], ["7"])
    assert rows[0].scores == [1 / 3, 1.0]


class Echo:
    """A ``Generator`` of texts that remembers what it was asked."""

    def generate(self, prompts, n, *, seed=None, stop=None):
        self.prompts, self.seed = prompts, seed
        return [[" 7", " 8 8"][:n] for _ in prompts]


class IdsOfSevens(Echo):
    """One that is given token ids, and does not know when to stop."""

    def generate_ids(self, prompts, n, *, seed=None):
        self.ids, self.seed = prompts, seed
        return [[ids_of(" 7" * 30)] * n for _ in prompts]


MESSAGES = [{"role": "user", "content": " 1 +"}]
TEMPLATE = "{% for m in messages %} a{{ m['content'] }}{% endfor %}{% if add_generation_prompt %} ={% endif %}"


def test_a_generator_is_given_the_text_as_it_was_written():
    generator = Echo()
    sampler = GeneratorSampler(generator, TOKENIZER, {"chat_template": TEMPLATE})
    prefixes = [Prefix(" 3 +", (), tuple(ids_of(" b\n\n")), 9), Prefix(MESSAGES, (), tuple(ids_of(" c\n\n")), 9)]
    found = sampler.continuations(prefixes, 2, 0)
    assert generator.prompts == [" 3 + b\n\n", " a 1 + = c\n\n"] and len(set(generator.seed)) == 2
    assert found[1] == [(" c\n\n 7", 1), (" c\n\n 8 8", 2)]
    again = GeneratorSampler(other := Echo(), TOKENIZER)
    again.continuations(prefixes[:1], 2, 0)
    assert other.seed == generator.seed[:1]  # a prefix's seed does not depend on the others in the call
    with pytest.raises(ValueError, match=r"sampler: got \[2\] completions, expected 3"):
        again.continuations(prefixes[:1], 3, 0)


def test_a_generator_of_ids_is_given_the_policys_own_and_cut_at_the_limit():
    generator = IdsOfSevens()
    prefix = Prefix(" 3 +", tuple(ids_of(" 3 +")), tuple(ids_of(" b\n\n")), 2)
    found = GeneratorSampler(generator, TOKENIZER).continuations([prefix], 1, 0)
    assert generator.ids == [ids_of(" 3 + b\n\n")] and found == [[(" b\n\n 7 7", 2)]]


def test_a_generator_that_reads_ids_as_prompts_is_given_the_policys_own_too():
    """Prompt and rollout as the policy read and wrote them, whatever a tokenizer would make of the text."""

    class ReadsIds(Echo):
        reads_ids = True

        def generate(self, prompts, n, *, seed=None, stop=None):
            super().generate(prompts, n, seed=seed)
            return [[Sample(" 7" * 30, ids_of(" 7" * 30)), " 8 8"] for _ in prompts]

    generator = ReadsIds()
    prefix = Prefix(MESSAGES, tuple(ids_of(" 3 +")), tuple(ids_of(" b\n\n")), 2)
    found = GeneratorSampler(generator, TOKENIZER).continuations([prefix], 2, 0)
    assert generator.prompts == [ids_of(" 3 + b\n\n")]
    assert found == [[(" b\n\n 7 7", 2), (" b\n\n 8 8", 2)]]


# In a trainer


def trainer_with(folder, scorer, *, trainer_class=ProcessGRPOTrainer, dataset=None, **settings):
    policy = settings.pop("model", None) or tiny_policy()
    arguments = {"verifier": DigitVerifier()} | settings.pop("trainer_arguments", {})
    config = {"max_steps": 1, "seed": 3, **settings}
    if trainer_class is ProcessPPOTrainer:
        args = tiny_config(folder, ProcessPPOConfig, **config)
    else:
        args = tiny_config(folder, **{"method": "vine"} | config)
    return trainer_class(
        model=policy,
        args=args,
        train_dataset=tiny_dataset() if dataset is None else dataset,
        processing_class=tiny_tokenizer(),
        step_scorer=scorer,
        **arguments,
    )


def test_one_update_of_grpo(tmp_path):
    scorer = LiveMonteCarloScorer(3, batch_size=5)
    trainer = trainer_with(tmp_path, scorer)
    trainer.train()
    batch, log = trainer.last_rollouts, trainer.state.log_history[0]
    steps = sum(len(row.steps) for row in batch.rows)
    assert steps > len(batch.rows)  # or nothing would be sampled
    stats = scorer.stats
    assert stats.prefixes + stats.duplicates == steps - len(batch.rows)
    assert log["prm/completions"] == stats.completions == 3 * stats.prefixes
    assert log["prm/tokens"] == stats.tokens > 0 and log["prm/seconds"] > 0
    for row in batch.rows:
        assert row.scores[-1] == row.verdict
        assert all((3 * score) == pytest.approx(round(3 * score)) for score in row.scores)
    torch.testing.assert_close(batch.step_advantages, METHODS["vine"](batch.rollouts))


def test_training_is_not_disturbed(tmp_path):
    """The same rollouts, losses and weights as with another scorer whose scores are not used either."""
    policies = {}
    for name, scorer in (("live", LiveMonteCarloScorer(2)), ("other", HashScorer())):
        trainer = trainer_with(tmp_path / name, scorer, method="outcome", max_steps=2)
        asked = trainer._calculate_rewards
        modes = []

        def recorded(*arguments, asked=asked, modes=modes, model=trainer.model):
            modes.append([module.training for module in model.modules()])
            rewards = asked(*arguments)
            modes.append([module.training for module in model.modules()])
            return rewards

        trainer._calculate_rewards = recorded
        trainer.train()
        assert modes[0] == modes[1] and any(modes[0])
        policies[name] = trainer
    assert policies["live"].scoring.step_scorer.stats.completions > 0
    texts = [[row.text for row in trainer.last_rollouts.rows] for trainer in policies.values()]
    assert texts[0] == texts[1]
    for mine, other in zip(policies["live"].model.parameters(), policies["other"].model.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_the_trainers_policy_continues_its_own_tokens(tmp_path):
    """With top_k=1 a continuation is the greedy one of the exact ids, whatever it is padded with; and it is the policy
    as it is now."""
    trainer = trainer_with(tmp_path, LiveMonteCarloScorer(2), top_k=1)
    sampler = TrainerSampler(trainer, rows=4)

    def check():
        prefixes = [
            Prefix("", tuple(ids_of(prompt)), tuple(ids_of(text)), limit)
            for prompt, text, limit in [
                (" 3 + 4 =", " a\n\n", 6),
                (" 1 =", " b\n\n c\n\n", 3),
                (" 1 + 2 + 3 =", "\n\n", 1),
            ]
        ]
        found = sampler.continuations(prefixes, 2, 0)
        for prefix, row in zip(prefixes, found, strict=True):
            greedy = []
            while len(greedy) < prefix.limit and greedy[-1:] != [1]:
                with torch.no_grad():
                    logits = trainer.model.eval()(torch.tensor([[*prefix.prompt_ids, *prefix.ids, *greedy]])).logits
                greedy.append(int(logits[0, -1].argmax()))
            text = TOKENIZER.decode([*prefix.ids, *greedy], skip_special_tokens=True)
            assert row == [(text, len(greedy))] * 2
        return found

    before = check()
    trainer.model.load_state_dict(tiny_policy(seed=1).state_dict())
    assert check() != before


def test_samples_follow_the_seed_and_leave_no_trace(tmp_path):
    sampler = TrainerSampler(trainer_with(tmp_path, LiveMonteCarloScorer(2)))
    prefixes = [Prefix("", tuple(ids_of(" 3 =")), tuple(ids_of(" a\n\n")), 12)]
    torch.manual_seed(0)
    first = sampler.continuations(prefixes, 4, 1)
    drawn = torch.rand(1)
    assert sampler.continuations(prefixes, 4, 1) == first != sampler.continuations(prefixes, 4, 2)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(1), drawn)
    assert len({one.text for one in first[0]}) > 1 and sampler.continuations([], 4, 1) == []


def test_chat_prompts_a_sampler_of_ones_own_and_ppo(tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    generator = Echo()
    prompts = [[{"role": "user", "content": f" {i} +"}] for i in range(8)]
    trainer = ProcessPPOTrainer(
        model=tiny_policy(),
        args=tiny_config(tmp_path, ProcessPPOConfig, max_steps=1, critic="shared"),
        train_dataset=tiny_dataset(8, prompt=prompts),
        processing_class=tokenizer,
        step_scorer=LiveMonteCarloScorer(2, sampler=generator),
        verifier=DigitVerifier(),
    )
    trainer.train()
    starts = {f" a {i} + =" for i in range(8)}
    assert generator.prompts and all(any(p.startswith(start) for start in starts) for p in generator.prompts)
    assert all(prompt.endswith("\n\n") for prompt in generator.prompts)
    assert trainer.state.log_history[0]["prm/completions"] == 2 * len(generator.prompts)


# Mistakes


def test_mistakes_are_named_before_anything_is_generated(tmp_path):
    def digits(completions, **_):
        return [1.0] * len(completions)

    with pytest.raises(ValueError, match="got no verifier="):
        trainer_with(tmp_path, LiveMonteCarloScorer(2), trainer_arguments={"verifier": None, "reward_funcs": digits})
    with pytest.raises(ValueError, match=r"got no gold answer in 8 rows of `solution`"):
        trainer_with(tmp_path, LiveMonteCarloScorer(2), dataset=tiny_dataset(8, solution=[None] * 8))
    for settings, said in (
        ({"num_completions": -1}, "num_completions: got -1, expected a whole number of at least 1"),
        ({"max_steps": 0}, "max_steps: got 0"),
        ({"batch_size": 0}, "batch_size: got 0"),
    ):
        with pytest.raises(ValueError, match=said):
            LiveMonteCarloScorer(**settings)
    with pytest.raises(ValueError, match="expected rollouts of the policy in training"):
        LiveMonteCarloScorer().score([" 1 ="], [["a"]])
    rollout = PolicyRollout(" 1 =", ids_of(" a"), step_lengths(ids_of(" a"), TOKENIZER, StepSplitter())[1], "1", 1.0)
    with pytest.raises(ValueError, match="got no policy"):
        LiveMonteCarloScorer().score_rollouts([rollout])
