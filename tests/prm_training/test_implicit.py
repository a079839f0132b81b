"""The implicit PRM that learns along: scores, loss and update against slow code, two adapters against two models."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from torch import nn

from rlhf_prm.prm.token_model import load_token_model
from rlhf_prm.prm_training.implicit import ImplicitPRM, ImplicitSettings
from rlhf_prm.prm_training.implicit_models import ADAPTER, AdapterModel, TwoModels
from rlhf_prm.prm_training.optimizer import MasterAdamW
from tests.tiny import DigitVerifier, tiny_dataset, tiny_policy

ROLLOUTS = [
    SimpleNamespace(prompt_ids=[5, 6, 7], completion_ids=[9, 3], verdict=1.0),
    SimpleNamespace(prompt_ids=[5, 6, 7], completion_ids=[10, 11, 12, 4], verdict=0.0),
    SimpleNamespace(prompt_ids=[8], completion_ids=[7, 9], verdict=math.nan),
    SimpleNamespace(prompt_ids=[8], completion_ids=[12], verdict=1.0),
]
LORA = dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"], lora_dropout=0.1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    paths = [tmp_path_factory.mktemp(name) for name in ("phi", "reference")]
    for seed, path in enumerate(paths):
        tiny_policy(seed=seed).save_pretrained(path)
    return paths


def implicit(folders, placement="replicate", budget=1000, **settings) -> ImplicitPRM:
    models = [load_token_model(path, placement, max_batch_tokens=budget) for path in folders]
    return ImplicitPRM(TwoModels(*models), ImplicitSettings(**settings))


def log_probs(model, one):
    logits = model(torch.tensor([one.prompt_ids + one.completion_ids])).logits[0]
    return logits.log_softmax(-1)[len(one.prompt_ids) - 1 : -1].gather(1, torch.tensor(one.completion_ids)[:, None])[
        :, 0
    ]


def slow_loss(phi, reference, rollouts, beta):
    """Mean cross-entropy of σ(β Σ q) on the verdicts, one rollout at a time."""
    losses = []
    for one in rollouts:
        with torch.no_grad():
            ref = log_probs(reference, one)
        chance = (beta * (log_probs(phi, one) - ref).sum()).sigmoid()
        losses.append(-(chance.log() if one.verdict else (1 - chance).log()))
    return sum(losses) / len(losses)


def test_the_score_of_a_token_is_beta_times_the_log_ratio(folders):
    scorer = implicit(folders, beta=0.3)
    phi, reference = tiny_policy(seed=0).eval(), tiny_policy(seed=1).eval()
    with torch.no_grad():
        for one, got in zip(ROLLOUTS, scorer.score_tokens(ROLLOUTS), strict=True):
            torch.testing.assert_close(
                got, 0.3 * (log_probs(phi, one) - log_probs(reference, one)), atol=1e-5, rtol=1e-4
            )


@pytest.mark.parametrize(("placement", "budget"), [("replicate", 1000), ("replicate", 1), ("offload", 8)])
def test_two_updates_equal_plain_torch(folders, placement, budget):
    """Loss, gradient norm and weights; what has no verdict teaches nothing."""
    scorer = implicit(folders, placement, budget, beta=0.5, learning_rate=1e-3, max_grad_norm=0.7)
    phi, reference = tiny_policy(seed=0).eval(), tiny_policy(seed=1).eval()
    optimizer = torch.optim.AdamW(phi.parameters(), lr=1e-3, weight_decay=0.0)
    judged = [one for one in ROLLOUTS if not math.isnan(one.verdict)]
    for _ in range(2):
        told = scorer.update(ROLLOUTS)
        loss = slow_loss(phi, reference, judged, 0.5)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(phi.parameters(), 0.7)
        optimizer.step()
        assert told["implicit_loss"] == pytest.approx(loss.item(), rel=1e-4) and told["implicit_rows"] == 3
        assert told["implicit_grad_norm"] == pytest.approx(norm.item(), rel=1e-3)
    body = scorer.models.model.reader.body.state_dict()
    moved = 0.0
    for name, weight in phi.model.state_dict().items():
        torch.testing.assert_close(body[name], weight, atol=2e-5, rtol=1e-3, msg=name)
        moved = max(moved, (weight - tiny_policy(seed=0).model.state_dict()[name]).abs().max().item())
    assert moved > 1e-3
    frozen = scorer.models.reference.reader.body.state_dict()
    assert all(torch.equal(frozen[name], weight) for name, weight in reference.model.state_dict().items())


def test_the_published_numbers():
    """q = [.4, −.2, .6] right and [−.4, 0] wrong with β = .05: cross-entropies .673347 and .683197."""

    class Known:
        device, forwards = torch.device("cpu"), 0
        weight = torch.nn.Parameter(torch.zeros(()))
        q = ([0.4, -0.2, 0.6], [-0.4, 0.0])

        def reference_log_probs(self, sequences):
            return [torch.zeros(len(ids)) for _, ids in sequences]

        log_probs = reference_log_probs  # not asked for

        def trained(self):
            return [self.weight]

        def learning(self):
            from contextlib import nullcontext

            return nullcontext()

        def batches(self, sequences):
            return [[i] for i in range(len(sequences))]

        def rows(self, reader, sequences):
            return [torch.tensor(self.q[0] if len(ids) == 3 else self.q[1]) + self.weight for _, ids in sequences]

    rows = [(3, 1.0), (2, 0.0)]
    rollouts = [SimpleNamespace(prompt_ids=[1], completion_ids=[2] * n, verdict=v) for n, v in rows]
    told = ImplicitPRM(Known(), ImplicitSettings()).update(rollouts)
    assert told["implicit_loss"] == pytest.approx((0.673347 + 0.683197) / 2, abs=1e-6)
    assert told["implicit_accuracy"] == 1.0


def test_the_filter_learns_from_mixed_prompts_only(folders):
    scorer = implicit(folders, keep_from=0.2, keep_to=0.8)
    assert scorer.update(ROLLOUTS)["implicit_rows"] == 2  # the second prompt is right in all that was judged
    before = copy.deepcopy(scorer.models.model.reader.state_dict())
    assert scorer.update(ROLLOUTS[2:]) == {"implicit_rows": 0.0}
    assert all(torch.equal(before[name], value) for name, value in scorer.models.model.reader.state_dict().items())


def test_it_learns_to_tell_right_from_wrong(folders):
    scorer = implicit(folders, learning_rate=1e-2, beta=0.5)
    told = [scorer.update(ROLLOUTS) for _ in range(20)]
    assert told[-1]["implicit_loss"] < 0.3 * told[0]["implicit_loss"] and told[-1]["implicit_accuracy"] == 1.0
    right, wrong, _, _ = scorer.score_tokens(ROLLOUTS)
    assert right.sum() > 0 > wrong.sum()


def test_going_on_from_a_state_is_going_on(folders):
    whole, cut = implicit(folders, learning_rate=1e-3), implicit(folders, learning_rate=1e-3)
    for scorer in (whole, cut):
        scorer.update(ROLLOUTS)
        scorer.update(ROLLOUTS)
    state = cut.state_dict()
    cut.update(ROLLOUTS)  # the state is a copy
    again = implicit(folders, learning_rate=1e-3)
    again.load_state_dict(state)
    whole.update(ROLLOUTS)
    again.update(ROLLOUTS)
    for one, other in zip(whole.score_tokens(ROLLOUTS), again.score_tokens(ROLLOUTS), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(ValueError, match="weights of other shapes"):
        again.load_state_dict({**state, "weights": state["weights"][:-1]})


def test_the_random_state_and_the_reference_are_left_alone(folders):
    scorer, drawn = implicit(folders), torch.get_rng_state()
    scorer.update(ROLLOUTS)
    scorer.score_tokens(ROLLOUTS)
    assert torch.equal(drawn, torch.get_rng_state())
    assert not any(p.requires_grad for p in scorer.models.reference.reader.parameters())


def trainer_of(policy) -> SimpleNamespace:
    """What an implicit PRM asks of a trainer."""
    parts = {"scoring": SimpleNamespace(verifier=DigitVerifier()), "train_dataset": tiny_dataset(2)}
    unwrapping = SimpleNamespace(unwrap_model=lambda model: model)
    return SimpleNamespace(model=policy, accelerator=unwrapping, is_fsdp_enabled=False, **parts)


def adapted(model, **settings) -> ImplicitPRM:
    return ImplicitPRM(AdapterModel(model, LoraConfig(**LORA)), ImplicitSettings(**settings))


def test_an_adapter_on_one_base_equals_two_models(tmp_path):
    """After some learning: base + merged adapter as φ and the plain base as reference, to 1e-5."""
    scorer = adapted(tiny_policy(seed=0), beta=0.5, learning_rate=1e-2)
    first = scorer.score_tokens(ROLLOUTS)
    assert all(not row.any() for row in first)  # a fresh adapter changes nothing
    for _ in range(5):
        scorer.update(ROLLOUTS)
    found = scorer.score_tokens(ROLLOUTS)
    assert max(row.abs().max().item() for row in found) > 0.05
    merged = copy.deepcopy(scorer.models.model)
    merged.set_adapter(ADAPTER)
    merged.merge_and_unload().save_pretrained(tmp_path / "phi")
    tiny_policy(seed=0).save_pretrained(tmp_path / "reference")
    two = implicit([tmp_path / "phi", tmp_path / "reference"], beta=0.5)
    for one, other in zip(found, two.score_tokens(ROLLOUTS), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_a_second_adapter_on_the_policys_own_base(tmp_path):
    """The policy's outputs, gradients, flags and adapter stay its own; no further copy of the base is made."""
    base = tiny_policy(seed=0)
    policy = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    plain = sum(p.numel() for p in policy.parameters())
    flags = [(p, p.requires_grad) for p in policy.parameters()]
    ids = torch.tensor([[5, 6, 7, 9]])
    policy.train()
    with torch.no_grad():
        before = policy(ids).logits
    trainer = trainer_of(policy)
    scorer = adapted(None, learning_rate=1e-2, beta=0.5)
    scorer.attach(trainer)
    alone = adapted(tiny_policy(seed=0), learning_rate=1e-2, beta=0.5)
    share = [p for name, p in policy.named_parameters() if f".{ADAPTER}." in name]
    own = dict(alone.models.model.named_parameters())
    with torch.no_grad():  # both begin with the same random halves
        for name, p in policy.named_parameters():
            if f".{ADAPTER}." in name:
                p.copy_(own[name])
    for _ in range(3):
        told = [s.update(ROLLOUTS) for s in (scorer, alone)]
        assert told[0]["implicit_loss"] == pytest.approx(told[1]["implicit_loss"], abs=1e-6)
    for one, other in zip(scorer.score_tokens(ROLLOUTS), alone.score_tokens(ROLLOUTS), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
    assert policy.active_adapter == "default" and policy.training
    assert all(p.requires_grad == flag for p, flag in flags) and not any(p.requires_grad for p in share)
    with torch.no_grad():
        assert torch.equal(policy(ids).logits, before)
    assert sum(p.numel() for p in policy.parameters()) == plain + sum(p.numel() for p in share)
    policy(ids).logits.sum().backward()
    assert all(p.grad is None for p in share)


def test_policies_without_peft_and_shards_are_refused():
    with pytest.raises(ValueError, match="got a policy without PEFT"):
        adapted(None).attach(trainer_of(tiny_policy()))


def test_what_it_could_not_learn_from_is_refused(folders):
    """The verdicts of a reward function come after it has scored; a verifier says nothing without gold answers."""
    trainer = trainer_of(tiny_policy())
    implicit(folders).attach(trainer)
    trainer.train_dataset = Dataset.from_dict({"prompt": ["a"], "solution": [None]})
    with pytest.raises(ValueError, match="implicit PRM: got no gold answer in 1 rows"):
        implicit(folders).attach(trainer)
    trainer.scoring.verifier = None
    with pytest.raises(ValueError, match="implicit PRM: got no verifier="):
        implicit(folders).attach(trainer)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"beta": 0.0}, "beta: got 0"),
        ({"order": "never"}, "order: got 'never'"),
        ({"keep_from": 0.9, "keep_to": 0.1}, "keep_from"),
    ],
)
def test_settings_out_of_range_are_refused(settings, told):
    with pytest.raises(ValueError, match=told):
        ImplicitSettings(**settings)


def test_weights_that_are_cast_later_keep_float32_copies():
    """As DeepSpeed does with an adapter beside the policy. Steps of 1e-4 round away in bfloat16, and add up here."""
    weight = nn.Parameter(torch.ones(4))
    adam = MasterAdamW([weight], 1e-4)
    weight.grad = torch.ones(4)
    adam()
    weight.data = weight.data.bfloat16()
    for _ in range(39):
        weight.grad = torch.ones(4, dtype=torch.bfloat16)
        adam()
    torch.testing.assert_close(adam.masters[0].data, torch.full((4,), 0.9961), atol=1e-5, rtol=0)
    assert weight.dtype == torch.bfloat16 and torch.equal(weight.data, torch.full((4,), 0.9961).bfloat16())
    again = MasterAdamW([weight], 1e-4)
    again.load_state_dict(adam.state_dict())
    assert torch.equal(again.masters[0], adam.masters[0]) and again.done == 40
