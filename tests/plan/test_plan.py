"""The plan's arithmetic against hand-worked numbers, transformers' own counts and autograd's own saved tensors."""

import json
from dataclasses import fields, replace

import pytest
import torch
from transformers import LlamaConfig, Qwen2Config, Qwen2ForCausalLM, Qwen2Model

from rlhf_prm.cli import main
from rlhf_prm.plan import RunPlan, fits, memory_by_part, model_shape, peak_bytes, seconds_by_part
from rlhf_prm.plan.fixes import smallest_fix
from rlhf_prm.plan.memory import GB, activations, generation, kv_cache_room, model_states, prm_scoring
from rlhf_prm.plan.shapes import SHAPES, ModelShape
from rlhf_prm.plan.timing import (
    GPUS,
    REFRESH_EVERY,
    REFRESH_ROWS,
    Efficiency,
    Hardware,
    communication_seconds,
    judge_tokens,
    update_seconds,
)
from rlhf_prm.prm_training.refresh import RefreshSettings

# hidden 8, two heads of 4, one key/value head, MLP 16, 10 words. One layer by hand: q and o 8·8 each, k and v 8·4 each,
# biases 8 + 4 + 4, MLP 3·8·16, norms 2·8 → 128 + 64 + 16 + 384 + 16 = 608. Embedding 80, final norm 8.
TINY = ModelShape(hidden=8, layers=2, heads=2, kv_heads=1, intermediate=16, vocab=10, tied=False)
UNIT = Hardware(memory_bytes=10**9, flops=1e6, memory_bandwidth=1e6, link_bandwidth=1e3, network_bandwidth=1e2)
ALL = Efficiency(training=1.0, scoring=1.0, decoding=1.0, links=1.0)


def test_tiny_shape_by_hand():
    assert TINY.layer_parameters == 608
    assert TINY.body_parameters == 80 + 2 * 608 + 8
    assert TINY.parameters == 80 + 2 * 608 + 8 + 80
    assert TINY.kv_bytes_per_token == 2 * 2 * 2 * 4
    assert TINY.forward_flops_per_token == 2 * (2 * 608 + 80)
    assert TINY.attention_flops_per_token(30) == 2 * 2 * 2 * 8 * 15  # scores and values, 2 layers, 15 tokens before


@pytest.mark.parametrize(("name", "parameters"), [("0.5B", 494032768), ("1.5B", 1543714304), ("7B", 7615616512)])
def test_published_sizes(name, parameters):
    assert model_shape(name).parameters == parameters


@pytest.mark.parametrize("name", ["1.5B", "14B"])
def test_parameters_equal_transformers_count(name):
    shape = SHAPES[name]
    config = Qwen2Config(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.intermediate,
        vocab_size=shape.vocab,
        tie_word_embeddings=shape.tied,
    )
    with torch.device("meta"):
        model = Qwen2ForCausalLM(config)
    assert shape.parameters == sum({id(p): p.numel() for p in model.parameters()}.values())


def test_shape_from_a_folder(tmp_path):
    LlamaConfig(hidden_size=8, num_hidden_layers=3, num_attention_heads=2, intermediate_size=16).save_pretrained(
        tmp_path
    )
    shape = model_shape(str(tmp_path))
    assert (shape.layers, shape.kv_heads, shape.qkv_bias) == (3, 2, False)
    with pytest.raises(ValueError, match="neither one of"):
        model_shape(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(("hidden", "heads", "kv_heads", "intermediate"), [(128, 4, 2, 512), (256, 8, 8, 1024)])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
def test_activation_bytes_equal_what_autograd_saves(hidden, heads, kv_heads, intermediate, checkpointing, autocast):
    """Bytes per layer and token = the difference between four layers and two, of distinct saved storages.

    Weights in bf16 as DeepSpeed has them, or in float32 under autocast as one GPU has them, with their bf16 copies.
    """
    tokens = 3 * 32  # no weight has a side of that length

    def saved(layers: int) -> tuple[int, int]:
        config = Qwen2Config(
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            intermediate_size=intermediate,
            vocab_size=32,
            use_cache=False,
        )
        model = Qwen2Model(config).to(torch.float32 if autocast else torch.bfloat16).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        kept = {}  # the tensors stay alive, so that no address is used twice

        def pack(tensor):
            kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
            return tensor

        hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
        with hooks, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            model(torch.zeros(3, 32, dtype=torch.long))
        sizes = {True: 0, False: 0}
        for address, tensor in kept.items():
            if address not in weights:
                is_copy = not {3, 32, tokens} & set(tensor.shape)
                sizes[is_copy] += tensor.untyped_storage().nbytes()
        return sizes[False], sizes[True]

    (four, four_copies), (two, two_copies) = saved(4), saved(2)
    shape = ModelShape(hidden, 4, heads, kv_heads, intermediate, 32, tied=False)
    one = shape.layer_activation_bytes_per_token + (10 * hidden if autocast else 0)
    expected = (4 if autocast else 2) * hidden if checkpointing else one
    assert (four - two) / 2 / tokens == pytest.approx(expected, rel=0.005)
    if autocast and not checkpointing:  # with checkpointing autocast's own cache holds them, not autograd
        assert (four_copies - two_copies) / 2 == pytest.approx(2 * shape.layer_parameters, rel=0.005)


def test_float32_weights_on_one_gpu():
    """Without ZeRO: 16 bytes per parameter, a float32 reference, a float32 cache and a float32 residual stream."""
    plan = run_plan(gpus=1, zero=0, reference=True, vllm="none", rollouts=64, per_device_train_batch_size=8)
    sharded = run_plan(gpus=1, zero=2, reference=True, vllm="none", rollouts=64, per_device_train_batch_size=8)
    p, parts, others = SHAPES["7B"].parameters, memory_by_part(plan), memory_by_part(sharded)
    assert parts["weights, gradients, optimizer"][0] == 16 * p
    assert parts["reference policy"][0] == 4 * p and others["reference policy"][0] == 2 * p
    assert parts["generation"][0] == 2 * others["generation"][0]
    more = 8 * plan.tokens * (2 * 3584 * 28 + 10 * 3584)
    assert activations(plan) - activations(sharded) == more


def test_the_cache_beside_float32_weights_is_float32():
    config = Qwen2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, intermediate_size=16,
        vocab_size=8,
    )  # fmt: skip
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        cache = Qwen2Model(config)(torch.zeros(1, 4, dtype=torch.long), use_cache=True).past_key_values
    assert cache.layers[0].keys.dtype == cache.layers[0].values.dtype == torch.float32


def run_plan(**changes) -> RunPlan:
    settings = dict(policy=SHAPES["7B"], prm=SHAPES["7B"], gpus=8, zero=3)
    return RunPlan(**(settings | changes))


def test_model_states_by_hand():
    p = SHAPES["7B"].parameters
    assert model_states(run_plan(zero=0)) == 16 * p
    assert model_states(run_plan(zero=1)) == 2 * p + 2 * p + 2 * p  # 16/8 = 2
    assert model_states(run_plan(zero=2)) == 2 * p + 18 * p // 8
    assert model_states(run_plan(zero=2, gpus=16, nodes=2)) == 2 * p + 18 * p // 16
    assert model_states(run_plan(zero=3)) == 4 * 152064 * 3584 + 18 * p // 8
    assert model_states(run_plan(zero=3, offload_optimizer=True)) == 4 * 152064 * 3584 + 2 * p // 8


def test_a_critic_of_its_own_is_trained_too():
    shape = SHAPES["7B"]
    assert run_plan(critic="shared").trained_parameters == shape.parameters + shape.hidden + 1
    own = run_plan(critic="own")
    assert own.trained_parameters == shape.parameters + shape.body_parameters + shape.hidden + 1
    # the layers' activations double, the tile of logits (4 × 1280 rows, value and gradient in float32) does not
    tile = 4 * 1280 * 152064 * 8
    assert activations(own) - tile == 2 * (activations(run_plan()) - tile)


def test_bytes_of_the_critic_and_policy_equal_a_real_optimizer():
    """DDP's 16 bytes per parameter, counted on a model after one step of AdamW."""
    model = Qwen2ForCausalLM(
        Qwen2Config(
            hidden_size=8,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            intermediate_size=16,
            vocab_size=10,
            tie_word_embeddings=False,
        )
    )
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.zeros(1, 3, dtype=torch.long)).logits.sum().backward()
    optimizer.step()
    moments = sum(t.nbytes for s in optimizer.state.values() for k, t in s.items() if k.startswith("exp_avg"))
    held = sum(p.nbytes + p.grad.nbytes for p in model.parameters()) + moments
    assert held == model_states(RunPlan(policy=TINY, prm=None, gpus=1, zero=0, rollouts=4, vllm="none"))


def test_prm_by_placement():
    body = 2 * SHAPES["7B"].body_parameters
    resident = {
        placement: memory_by_part(run_plan(prm_placement=placement)).get("PRM weights", (0,))[0]
        for placement in ("replicate", "zero3", "offload", "server")
    }
    assert resident == {"replicate": body, "zero3": body // 8, "offload": 0, "server": 0}
    scoring = prm_scoring(run_plan())
    assert prm_scoring(run_plan(prm_placement="offload")) == scoring + body
    assert prm_scoring(run_plan(prm_placement="server")) == 0


def test_phases():
    """Sleeping vLLM leaves the training phase; a replicated PRM never does."""
    awake, asleep = run_plan(), run_plan(vllm_enable_sleep_mode=True)
    assert peak_bytes(awake)["train"] - peak_bytes(asleep)["train"] == generation(awake) == int(0.3 * 80 * GB)
    assert peak_bytes(awake)["generate"] == peak_bytes(asleep)["generate"]


def test_rollouts_in_vllm_cache():
    """24 GB − 15.23 GB of weights = 8.77 GB; a rollout of 1280 tokens takes 1280 · 2·2·28·512 B = 73.4 MB → 119."""
    assert kv_cache_room(run_plan(rollouts=2048, vllm_gpu_memory_utilization=0.3)) == 119
    assert kv_cache_room(run_plan(rollouts=512)) == 64  # no more than there are
    assert kv_cache_room(run_plan(vllm_gpu_memory_utilization=0.1)) == 0


def test_a_fix_fits_and_needs_each_of_its_settings():
    plan = run_plan(zero=2, critic="own", reference=True, gpu_bytes=40 * GB)
    assert not fits(plan)
    texts, fixed = smallest_fix(plan)
    assert fits(fixed)
    for field in (
        "zero",
        "prm_placement",
        "vllm_gpu_memory_utilization",
        "vllm_enable_sleep_mode",
        "offload_optimizer",
    ):
        if getattr(fixed, field) != getattr(plan, field):
            assert not fits(replace(fixed, **{field: getattr(plan, field)})), field
    assert "zero_stage: 3" in texts


def test_one_setting_is_preferred_and_the_hopeless_is_said():
    texts, _ = smallest_fix(run_plan(gpus=16, nodes=2, zero=2, critic="own"))
    assert texts == ["zero_stage: 3"]
    assert smallest_fix(run_plan(policy=SHAPES["72B"], gpus=1, gpu_bytes=24 * GB)) is None
    assert smallest_fix(run_plan())[0] == []


def test_seconds_by_hand():
    """One GPU of 1 Mflop/s and 1 MB/s: every part worked out on paper."""
    plan = RunPlan(
        policy=TINY,
        prm=TINY,
        gpus=1,
        zero=0,
        rollouts=4,
        prompt_tokens=10,
        completion_tokens=20,
        per_device_train_batch_size=4,
        vllm="none",
    )
    head = 4 * 10 * 2 * (2 * 608 + 80)  # the prompts' own forward
    forward = 2 * (2 * 608 + 80) + 960  # per token, attention over 15 others in the mean
    weights, cache = 2 * 1384, 4 * (10 + 20 / 2) * 32  # bytes read per decoding step: 2768 + 2560
    assert max(weights + cache, 4 * forward) == 4 * forward  # here arithmetic is the slower one
    seconds = seconds_by_part(plan, UNIT, ALL)
    assert seconds["generate"] == pytest.approx((head + 20 * 4 * forward) / 1e6)
    assert seconds["PRM"] == pytest.approx((2 * 2 * 608 + 960) * 4 * 30 / 1e6)
    assert seconds["train"] == pytest.approx(4 * 4 * 30 * forward / 1e6)
    assert set(seconds) == {"generate", "PRM", "train"}  # nothing to communicate, no old policy to ask


def test_thinking_that_the_prm_does_not_read_costs_it_nothing():
    """Of 20 completion tokens 15 are thinking: an answer of 5 and the prompt of 10 are half of the 30."""
    plan = RunPlan(TINY, TINY, gpus=1, zero=0, rollouts=4, prompt_tokens=10, completion_tokens=20, vllm="none")
    half = replace(plan, thinking_share=0.75, prm_reads="answer")
    assert (plan.read_tokens, half.read_tokens, replace(half, prm_reads="thinking").read_tokens) == (30, 15, 25)
    assert seconds_by_part(half, UNIT, ALL)["PRM"] == pytest.approx((2 * 2 * 608 + 480) * 4 * 15 / 1e6)


def test_a_prm_of_a_short_context_reads_windows():
    """Of 10 + 20 tokens a context of 18 leaves 8 for steps: 4 again and 4 new in each of 3 further windows of 18."""
    plan = RunPlan(TINY, TINY, gpus=1, zero=0, rollouts=4, prompt_tokens=10, completion_tokens=20, vllm="none")
    short = replace(plan, prm_context=18)
    assert (plan.windowed_tokens, short.windowed_tokens, replace(plan, prm_context=30).windowed_tokens) == (30, 72, 30)
    longer = TINY.attention_flops_per_token(18)
    assert seconds_by_part(short, UNIT, ALL)["PRM"] == pytest.approx((2 * 2 * 608 + longer) * 4 * 72 / 1e6)
    assert seconds_by_part(replace(plan, prm_context=64), UNIT, ALL) == seconds_by_part(plan, UNIT, ALL)
    with pytest.raises(ValueError, match="prm_context: got 10, expected 0"):
        replace(plan, prm_context=10)


def test_an_asynchronous_update_takes_the_longer_side():
    beside = {"gpus": 1, "zero": 0, "vllm": "server", "prm_placement": "server", "rollouts": 4}
    plan = RunPlan(TINY, TINY, prompt_tokens=10, completion_tokens=20, asynchronous=True, **beside)
    seconds = {"generate": 3.0, "PRM": 2.0, "train": 4.0, "communicate": 0.5}
    assert update_seconds(plan, seconds) == 5.0 and update_seconds(replace(plan, asynchronous=False), seconds) == 9.5
    assert update_seconds(plan, seconds | {"train": 6.0}) == 6.5
    assert "PRM" in seconds_by_part(plan, UNIT, ALL)  # its GPUs are part of what is planned
    with pytest.raises(ValueError, match="asynchronous: got True with vllm 'colocate'"):
        replace(plan, vllm="colocate")


def test_a_judge_and_a_refresh_by_hand():
    plan = RunPlan(TINY, TINY, gpus=1, zero=0, rollouts=4, prompt_tokens=10, completion_tokens=20, judge_tokens=7)
    assert judge_tokens(plan) == (4 * 30, 4 * 7) and judge_tokens(replace(plan, judge_tokens=0)) == (0, 0)
    learns = replace(plan, prm_refresh=True)
    assert seconds_by_part(learns, UNIT, ALL)["PRM refresh"] == pytest.approx(
        3 * (2 * 2 * 608 + 960) * 30 * 60 * 64 / 20 / 1e6
    )
    settings = {field.name: field.default for field in fields(RefreshSettings)}
    assert (settings["updates"] * settings["batch_size"], settings["every"]) == (REFRESH_ROWS, REFRESH_EVERY)
    for name, value in (("thinking_share", 1.2), ("judge_tokens", -1), ("prm_reads", "some")):
        with pytest.raises(ValueError, match=f"{name}: got"):
            replace(plan, **{name: value})


def test_decoding_is_bound_by_bandwidth_when_memory_is_slow():
    plan = RunPlan(
        policy=TINY, prm=None, gpus=1, zero=0, rollouts=4, prompt_tokens=10, completion_tokens=20, vllm="none"
    )
    slow = replace(UNIT, memory_bandwidth=1e3)
    prefill = 4 * 10 * TINY.forward_flops_per_token / 1e6
    assert seconds_by_part(plan, slow, ALL)["generate"] == pytest.approx(prefill + 20 * (2768 + 2560) / 1e3)


@pytest.mark.parametrize(("zero", "bytes_per_weight"), [(0, 8), (1, 4), (2, 4), (3, 6 * 2)])
def test_communication_by_hand(zero, bytes_per_weight):
    """Two GPUs, two micro-batches; half of the weights cross; two nodes have the slower network."""
    plan = RunPlan(policy=TINY, prm=None, gpus=2, zero=zero, rollouts=16, per_device_train_batch_size=4, vllm="none")
    assert communication_seconds(plan, UNIT, ALL) == pytest.approx(bytes_per_weight * 1384 / 2 / 1e3)
    assert communication_seconds(replace(plan, nodes=2), UNIT, ALL) == pytest.approx(bytes_per_weight * 1384 / 2 / 1e2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(zero=4), "zero: got 4"),
        (dict(prm_placement="gpu"), "prm_placement: got 'gpu'"),
        (dict(gpus=3, nodes=2), "got 3 on 2 nodes"),
        (dict(rollouts=100), "expected a multiple of gpus × per_device_train_batch_size"),
    ],
)
def test_bad_plans_say_what_came_and_what_was_expected(change, message):
    with pytest.raises(ValueError, match=message):
        run_plan(**change)


def test_command(capsys):
    assert main(["plan", "--policy", "7B", "--prm", "7B", "--gpus", "8", "--zero", "3", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["fits"] and said["fix"] == [] and said["peak"]["train"] <= said["gpu_bytes"]
    assert main(["plan", "--policy", "7B", "--prm", "7B", "--gpu", "a100-40", "--zero", "2", "--critic", "own"]) == 0
    text = capsys.readouterr().out
    assert "does not fit in 40 GB" in text and "zero_stage: 3" in text and "seconds per update" in text
    assert main(["plan", "--rollouts", "7"]) == 2
    capsys.readouterr()
    for more, zero in (([], 0), (["--zero", "3"], 3)):
        assert main(["plan", "--policy", "1.5B", "--gpus", "1", "--json", *more]) == 0
        assert json.loads(capsys.readouterr().out)["planned"]["zero"] == zero
    assert set(GPUS) >= {"h100", "a100-80"}
