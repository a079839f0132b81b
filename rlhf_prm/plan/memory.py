"""Memory of a run, by part and by phase of an update (generate, score, train), on a GPU and on its node's host.

A part counts in the phases in which it exists; the run needs the largest phase. Model states come from DeepSpeed's
own estimators where they exist (ZeRO-2 and ZeRO-3); they assume bf16 training with float32 copies and Adam.
"""

import math
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass

from rlhf_prm.plan.shapes import ModelShape
from rlhf_prm.thinking import PARTS

GB = 10**9
PHASES = ("generate", "score", "train")
PLACEMENTS = ("replicate", "zero3", "offload", "server")
SCORERS = ("prm", "frozen", "implicit", "adapter")
PRM_TOKENS = 16384  # padded tokens of a micro-batch of the PRM on a GPU, as load_prm has them
TOKEN_TILE = 1024  # positions of a token scorer whose logits exist at the same time (``readers.CHUNK``)
LOG_PROB_TILE = 32768  # rows of TRL's fused LM head that hold their logits at one time
# Left to the CUDA context, NCCL's buffers and the allocator's fragmentation; a stated assumption, not a measurement.
RESERVE_BYTES = 3 * GB


@dataclass(frozen=True)
class RunPlan:
    """The settings that determine memory and time. Token counts are means; rollouts are per update over all GPUs.

    ``task``: "rl", or "prm": the training of a PRM of the policy's shape, which has the one phase "train".
    ``adapter_parameters``: LoRA's; 0 = all weights are trained. ``frozen_bytes``: per weight that LoRA leaves as it
    is, without ZeRO. ``zero``: 0 = DDP. ``critic``: "none" (GRPO), "own" (a trunk of the policy's size) or "shared".
    ``vllm``: "colocate", "server" (on other GPUs), or "none" (transformers' generate). ``scorer``: what ``prm`` is the
    shape of: "prm" (a trunk), "frozen" (a whole language model: a teacher, the policy's start), "implicit" (two of
    them, one of which is trained) or "adapter" (an implicit PRM as an adapter on one). ``prm_refresh``: the PRM is
    trained at intervals. ``thinking_share``: of a completion's tokens; ``prm_reads`` "thinking" or "answer" leaves the
    others out. ``prm_context``: of a PRM that reads longer texts in windows; 0 = it reads them whole.
    ``judge_tokens``: tokens that a judge writes on each rollout it reads. ``asynchronous``: rollouts are sampled and
    scored, on as many further GPUs, while the trainer trains on earlier ones.
    """

    policy: ModelShape
    prm: ModelShape | None
    gpus: int = 8
    nodes: int = 1
    gpu_bytes: int = 80 * GB
    zero: int = 3
    offload_optimizer: bool = False
    critic: str = "none"
    reference: bool = False
    prm_placement: str = "replicate"
    prm_tokens: int = PRM_TOKENS  # the token budget of one PRM micro-batch
    vllm: str = "colocate"
    vllm_gpu_memory_utilization: float = 0.3
    vllm_enable_sleep_mode: bool = False
    rollouts: int = 512
    prompt_tokens: int = 256
    completion_tokens: int = 1024
    per_device_train_batch_size: int = 4
    gradient_checkpointing: bool = True
    num_iterations: int = 1
    task: str = "rl"
    adapter_parameters: int = 0
    frozen_bytes: int = 4
    scorer: str = "prm"
    prm_refresh: bool = False
    thinking_share: float = 0.0
    prm_reads: str = "all"
    prm_context: int = 0
    judge_tokens: int = 0
    asynchronous: bool = False

    def __post_init__(self) -> None:
        for name, wanted in (
            ("zero", (0, 1, 2, 3)),
            ("task", ("rl", "prm")),
            ("critic", ("none", "own", "shared")),
            ("prm_placement", PLACEMENTS),
            ("scorer", SCORERS),
            ("vllm", ("colocate", "server", "none")),
            ("prm_reads", PARTS),
        ):
            if getattr(self, name) not in wanted:
                raise ValueError(f"{name}: got {getattr(self, name)!r}, expected one of {wanted}")
        if not 0 <= self.thinking_share <= 1:
            raise ValueError(f"thinking_share: got {self.thinking_share}, expected a share between 0 and 1")
        if self.prm_context and self.prm_context <= self.prompt_tokens:
            raise ValueError(
                f"prm_context: got {self.prm_context}, expected 0 (no limit) or more than the {self.prompt_tokens} "
                "tokens of a prompt, which every window begins with"
            )
        if self.judge_tokens < 0:
            raise ValueError(f"judge_tokens: got {self.judge_tokens}, expected 0 (no judge) or more")
        apart = self.prm is None or self.prm_placement == "server"
        if self.asynchronous and (self.vllm != "server" or not apart):
            raise ValueError(
                f"asynchronous: got True with vllm {self.vllm!r} and prm_placement {self.prm_placement!r}, expected "
                "'server' for both: what runs beside the training needs GPUs of its own"
            )
        if self.gpus < 1 or self.nodes < 1 or self.gpus % self.nodes:
            raise ValueError(f"gpus: got {self.gpus} on {self.nodes} nodes, expected the same positive number on each")
        if self.rollouts % (self.gpus * self.per_device_train_batch_size):
            raise ValueError(
                f"rollouts: got {self.rollouts}, expected a multiple of gpus × per_device_train_batch_size "
                f"({self.gpus} × {self.per_device_train_batch_size})"
            )

    @property
    def tokens(self) -> int:
        """Prompt and completion of one rollout."""
        return self.prompt_tokens + self.completion_tokens

    @property
    def read_tokens(self) -> float:
        """Tokens of one rollout that the scorer reads."""
        shares = {"all": 1.0, "thinking": self.thinking_share, "answer": 1 - self.thinking_share}
        return self.prompt_tokens + self.completion_tokens * shares[self.prm_reads]

    @property
    def windowed_tokens(self) -> float:
        """The same in windows, each of which but the first has the prompt and half its steps again."""
        left = self.read_tokens - self.prm_context
        if not self.prm_context or left <= 0:
            return self.read_tokens
        half = (self.prm_context - self.prompt_tokens) / 2
        return self.read_tokens + math.ceil(left / half) * (self.prompt_tokens + half)

    @property
    def scorer_parameters(self) -> int:
        """Parameters that score: the PRM's trunk, a language model, or two."""
        if self.prm is None:
            return 0
        if self.scorer == "prm":
            return self.prm.body_parameters
        return self.prm.parameters * (2 if self.scorer == "implicit" else 1)

    @property
    def phases(self) -> tuple[str, ...]:
        """The phases that this run has."""
        return PHASES if self.task == "rl" else ("train",)

    @property
    def base_parameters(self) -> int:
        """The policy, or the trunk of the PRM that is trained."""
        return self.policy.parameters if self.task == "rl" else self.policy.body_parameters

    @property
    def frozen_parameters(self) -> int:
        """Parameters that LoRA does not train."""
        return self.base_parameters if self.adapter_parameters else 0

    @property
    def autocast(self) -> bool:
        """Whether float32 weights are multiplied in bf16: without DeepSpeed, unless LoRA is on bf16 weights."""
        return self.zero == 0 and not (self.frozen_parameters and self.frozen_bytes == 2)

    @property
    def trained_parameters(self) -> int:
        """Policy or adapters, plus the critic's own trunk and value head, or the PRM's head of two layers."""
        trained = self.adapter_parameters or self.base_parameters
        if self.task == "prm":
            return trained + self.policy.hidden * (self.policy.hidden + 1) + 2 * (self.policy.hidden + 1)
        own = self.policy.body_parameters if self.critic == "own" else 0
        return trained + own + (0 if self.critic == "none" else self.policy.hidden + 1)

    @property
    def largest_module(self) -> int:
        """Parameters ZeRO-3 holds whole at one time: the embedding or one linear map, whichever is larger."""
        return max(self.policy.embedding_parameters, self.policy.hidden * self.policy.intermediate)

    @property
    def micro_batches(self) -> int:
        """Forward-backward passes per GPU and update."""
        return self.rollouts // (self.gpus * self.per_device_train_batch_size)


def _deepspeed_estimators() -> tuple[Callable, Callable]:
    """DeepSpeed's functions for ZeRO-2 and ZeRO-3; what its import prints goes to stderr."""
    try:
        with redirect_stdout(sys.stderr):
            from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs as zero3
            from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs as zero2
    except ImportError as error:
        raise ValueError("zero 2 and 3 need DeepSpeed's estimators: pip install 'rlhf-prm[deepspeed]'") from error
    return zero2, zero3


def model_states(plan: RunPlan) -> int:
    """Bytes per GPU of weights, gradients and optimizer of everything that is trained.

    DDP and one GPU: float32 weights, gradients and two Adam moments (the recipes load policies so, and the trainers
    refuse bf16 weights there). ZeRO-1, for which DeepSpeed has no estimator: bf16 weights and gradients whole, float32
    weights, gradients and moments divided over the GPUs. Weights that LoRA freezes are not included.
    """
    total, per_node = plan.trained_parameters, plan.gpus // plan.nodes
    if plan.zero == 0:
        return 16 * total
    if plan.zero == 1:
        return 4 * total if plan.offload_optimizer else 4 * total + 16 * total // plan.gpus
    zero2, zero3 = _deepspeed_estimators()
    if plan.zero == 2:
        return zero2(total, per_node, plan.nodes, plan.offload_optimizer)[1]
    return zero3(total, plan.largest_module, per_node, plan.nodes, plan.offload_optimizer, cpu_offload_params=False)[1]


def frozen_weights(plan: RunPlan) -> int:
    """Bytes per GPU of the weights that LoRA does not train; bf16 under DeepSpeed, divided by ZeRO-3."""
    if plan.zero == 0:
        return plan.frozen_bytes * plan.frozen_parameters
    return 2 * plan.frozen_parameters // (plan.gpus if plan.zero == 3 else 1)


def autocast_copies(plan: RunPlan) -> int:
    """Bytes of the bf16 copies that autocast makes of float32 weights and keeps during a forward pass.

    They exist only for weights that are multiplied, and not with DeepSpeed, whose weights are bf16 already.
    """
    if not plan.autocast:
        return 0
    shape = plan.policy
    layers = shape.layers * shape.layer_parameters
    output = shape.embedding_parameters if plan.task == "rl" else 0
    return 2 * (layers * (2 if plan.critic == "own" else 1) + output)


def activations(plan: RunPlan) -> int:
    """Bytes of one training micro-batch: saved layers, a tile of logits with its gradient, the critic's layers.

    Under autocast of float32 weights (no ZeRO) what runs along the layers is float32: four bytes more per hidden unit
    that a layer hands on, ten more that it saves.
    """
    tokens = plan.per_device_train_batch_size * plan.tokens
    shape, autocast = plan.policy, plan.autocast
    layer = shape.layer_activation_bytes_per_token + (10 * shape.hidden if autocast else 0)
    if plan.gradient_checkpointing:
        layers = tokens * ((4 if autocast else 2) * shape.hidden * shape.layers + layer)
    else:
        layers = tokens * layer * shape.layers
    if plan.task == "prm":
        return layers  # two numbers a step in place of logits
    tile = min(LOG_PROB_TILE, tokens) * shape.vocab * (4 + 4)
    return layers * (2 if plan.critic == "own" else 1) + tile


def prm_resident(plan: RunPlan) -> int:
    """Bytes of the PRM's bf16 weights between scorings."""
    if plan.prm is None or plan.prm_placement in ("server", "offload"):
        return 0
    weights = 2 * plan.scorer_parameters
    return weights // plan.gpus if plan.prm_placement == "zero3" else weights


def implicit_optimizer(plan: RunPlan) -> int:
    """Bytes of an implicit PRM's float32 weights and Adam moments, on every GPU whatever the placement."""
    return 12 * plan.prm.parameters if plan.scorer == "implicit" and plan.prm is not None else 0


def prm_refresh(plan: RunPlan) -> int:
    """Bytes of a refresh: gradients, float32 weights and moments of the PRM, its layers kept for the backward pass.

    They exist only between two updates, in place of a scoring.
    """
    if plan.prm is None or not plan.prm_refresh:
        return 0
    kept = plan.prm_tokens * plan.prm.layer_activation_bytes_per_token * (plan.prm.layers - 1)
    return 14 * plan.prm.body_parameters + kept


def prm_scoring(plan: RunPlan) -> int:
    """Bytes a scoring adds to that: loaded or gathered weights, and two layers' worth of activations."""
    if plan.prm is None or plan.prm_placement == "server":
        return 0
    weights = {"offload": 2 * plan.scorer_parameters, "zero3": 2 * plan.prm.embedding_parameters}
    layer = plan.prm_tokens * plan.prm.layer_activation_bytes_per_token
    if plan.scorer == "prm":
        return weights.get(plan.prm_placement, 0) + layer
    tile = min(TOKEN_TILE, plan.prm_tokens) * plan.prm.vocab * (4 + 4)
    learning = plan.scorer in ("implicit", "adapter")  # layers are kept for the backward pass, and all tiles of logits
    gradients = 2 * plan.prm.parameters if plan.scorer == "implicit" else 0
    logits = plan.prm_tokens * plan.prm.vocab * 4 if learning else 0
    layers = layer * (plan.prm.layers if learning else 1)
    return weights.get(plan.prm_placement, 0) + layers + tile + logits + gradients


def generation(plan: RunPlan) -> int:
    """Bytes of vLLM's share, or of transformers' cache (and, under ZeRO-3, of the gathered weights).

    The cache is float32 beside float32 weights (no ZeRO): RoPE makes the keys so, and the cache takes their type.
    """
    if plan.vllm == "server" or plan.task == "prm":
        return 0
    if plan.vllm == "colocate":
        return int(plan.vllm_gpu_memory_utilization * plan.gpu_bytes)
    cache = plan.rollouts // plan.gpus * plan.tokens * plan.policy.kv_bytes_per_token * (2 if plan.autocast else 1)
    return cache + (2 * plan.trained_parameters if plan.zero == 3 else 0)


def kv_cache_room(plan: RunPlan) -> int:
    """Rollouts whose keys and values fit at one time beside vLLM's copy of the weights (never more than needed)."""
    needed = plan.rollouts // plan.gpus
    if plan.vllm != "colocate":
        return needed
    room = generation(plan) - 2 * plan.policy.parameters
    return max(0, min(needed, room // (plan.tokens * plan.policy.kv_bytes_per_token)))


def memory_by_part(plan: RunPlan) -> dict[str, tuple[int, tuple[str, ...]]]:
    """Part → (bytes per GPU, the phases in which it exists)."""
    width = 2 if plan.zero else 4  # TRL loads the reference in the policy's dtype; DeepSpeed's engine casts it to bf16
    reference = width * plan.policy.parameters // (plan.gpus if plan.zero == 3 else 1) if plan.reference else 0
    awake = PHASES if plan.vllm == "colocate" and not plan.vllm_enable_sleep_mode else ("generate",)
    parts = {
        "weights, gradients, optimizer": (model_states(plan), PHASES),
        "frozen weights": (frozen_weights(plan), PHASES),
        "bf16 copies by autocast": (
            autocast_copies(plan),
            ("generate", "train") if plan.vllm == "none" else ("train",),
        ),
        "reference policy": (reference, PHASES),
        "PRM weights": (prm_resident(plan), PHASES),
        "implicit PRM's optimizer": (implicit_optimizer(plan), PHASES),
        "vLLM" if plan.vllm == "colocate" else "generation": (generation(plan), awake),
        "PRM scoring": (prm_scoring(plan), ("score",)),
        "PRM refresh": (prm_refresh(plan), ("score",)),
        "activations": (activations(plan), ("train",)),
        "reserve": (RESERVE_BYTES, PHASES),
    }
    return {name: part for name, part in parts.items() if part[0]}


def peak_bytes(plan: RunPlan) -> dict[str, int]:
    """Phase → bytes per GPU."""
    parts = memory_by_part(plan).values()
    return {phase: sum(size for size, phases in parts if phase in phases) for phase in plan.phases}


def host_memory(plan: RunPlan) -> dict[str, int]:
    """Part → bytes of each node's host memory that offloading takes, by DeepSpeed's estimators with their margin."""
    total, per_node = plan.trained_parameters, plan.gpus // plan.nodes
    parts = {}
    if plan.offload_optimizer and plan.zero == 1:
        parts["optimizer"] = 16 * total // plan.nodes
    elif plan.offload_optimizer and plan.zero:
        zero2, zero3 = _deepspeed_estimators()
        if plan.zero == 2:
            parts["optimizer"] = zero2(total, per_node, plan.nodes, True)[0]
        else:
            module = plan.largest_module
            parts["optimizer"] = zero3(total, module, per_node, plan.nodes, True, cpu_offload_params=False)[0]
    if plan.prm is not None and plan.prm_placement == "offload":
        parts["PRM, a copy for each GPU"] = 2 * plan.scorer_parameters * per_node
    return parts


def fits(plan: RunPlan) -> bool:
    """Whether every phase stays within the GPU and vLLM can hold at least one rollout."""
    return max(peak_bytes(plan).values()) <= plan.gpu_bytes and kv_cache_room(plan) > 0
