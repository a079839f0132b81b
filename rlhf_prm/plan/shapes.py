"""The shape of a decoder-only model, and the numbers that follow from it: parameters, cache and activation bytes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ModelShape:
    """A Qwen2/Llama-like decoder: attention with grouped key/value heads, a gated MLP, RMSNorm."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocab: int
    tied: bool
    qkv_bias: bool = True
    head_dim: int | None = None  # None = hidden / heads

    @property
    def kv_width(self) -> int:
        return self.kv_heads * (self.head_dim or self.hidden // self.heads)

    @property
    def q_width(self) -> int:
        return self.heads * (self.head_dim or self.hidden // self.heads)

    @property
    def layer_parameters(self) -> int:
        """Parameters of one layer: q, k, v, o, gate, up, down and two norms."""
        attention = 2 * self.hidden * self.q_width + 2 * self.hidden * self.kv_width
        bias = self.q_width + 2 * self.kv_width if self.qkv_bias else 0
        return attention + bias + 3 * self.hidden * self.intermediate + 2 * self.hidden

    @property
    def embedding_parameters(self) -> int:
        return self.vocab * self.hidden

    @property
    def body_parameters(self) -> int:
        """Embedding, layers and final norm: what a critic or a PRM keeps of a causal LM."""
        return self.embedding_parameters + self.layers * self.layer_parameters + self.hidden

    @property
    def parameters(self) -> int:
        """All parameters of the causal LM; a tied output matrix counts once."""
        return self.body_parameters + (0 if self.tied else self.embedding_parameters)

    @property
    def forward_flops_per_token(self) -> int:
        """Two per weight that is multiplied: the layers and the output matrix (the embedding is a look-up)."""
        return 2 * (self.layers * self.layer_parameters + self.embedding_parameters)

    def attention_flops_per_token(self, tokens: int | float) -> float:
        """FLOPs of attention over the earlier tokens, per token, as a mean over a text of ``tokens`` tokens."""
        return 2.0 * self.layers * self.q_width * tokens

    @property
    def kv_bytes_per_token(self) -> int:
        """Key and value of every layer, in two-byte numbers."""
        return 2 * 2 * self.layers * self.kv_width

    @property
    def layer_activation_bytes_per_token(self) -> int:
        """Bytes that one layer keeps for its backward pass in bf16, with an attention that does not store the scores.

        Two bytes each for four hidden-wide tensors, two query-wide ones, keys, values and four intermediate-wide
        tensors, and four bytes for the float32 input of each of the two norms. Saved-tensor counts of transformers'
        Qwen2 agree to 0.5 % (``tests/plan``).
        """
        return 2 * (4 * self.hidden + 2 * self.q_width + 2 * self.kv_width + 4 * self.intermediate) + 8 * self.hidden


# The Qwen2.5 family (Qwen2.5-Math shares 1.5B, 7B and 72B), from the published config files.
SHAPES = {
    "0.5B": ModelShape(896, 24, 14, 2, 4864, 151936, tied=True),
    "1.5B": ModelShape(1536, 28, 12, 2, 8960, 151936, tied=True),
    "3B": ModelShape(2048, 36, 16, 2, 11008, 151936, tied=True),
    "7B": ModelShape(3584, 28, 28, 4, 18944, 152064, tied=False),
    "14B": ModelShape(5120, 48, 40, 8, 13824, 152064, tied=False),
    "32B": ModelShape(5120, 64, 40, 8, 27648, 152064, tied=False),
    "72B": ModelShape(8192, 80, 64, 8, 29568, 152064, tied=False),
}

LLAMA_8B = ModelShape(4096, 32, 32, 8, 14336, 128256, tied=False, qkv_bias=False)
QWEN3_1_7B = ModelShape(2048, 28, 16, 8, 6144, 151936, tied=True, qkv_bias=False, head_dim=128)
MISTRAL_7B = ModelShape(4096, 32, 32, 8, 14336, 32000, tied=False, qkv_bias=False)

# Published models by pattern of their Hub names, so that a plan needs no network. Size letters are looked up in SHAPES.
PUBLISHED: tuple[tuple[str, ModelShape | None], ...] = (
    (r"Qwen/Qwen2\.5-(?:Math-|Math-PRM-|Coder-)?(\d+(?:\.\d)?B)(?:-[\w-]+)?", None),  # Instruct, PRM800K, …
    (r"Qwen/Qwen3-1\.7B", QWEN3_1_7B),
    (r"Skywork/Skywork-o1-Open-PRM-Qwen-2\.5-(1\.5B|7B)", None),
    (r"Gen-Verse/ReasonFlux-PRM-(1\.5B|7B)", None),
    (r"PRIME-RL/EurusPRM-Stage[12]", SHAPES["7B"]),
    (r"jinachris/PURE-PRM-7B", SHAPES["7B"]),
    (r"peiyi9979/math-shepherd-mistral-7b-prm", MISTRAL_7B),
    (r"RLHFlow/Llama3\.1-8B-PRM-\w+-Data", LLAMA_8B),
    (r"meta-llama/(?:Llama-3\.1|Meta-Llama-3\.1|Meta-Llama-3)-8B(?:-Instruct)?", LLAMA_8B),
)


def lora_parameters(shape: ModelShape, rank: int, targets: Sequence[str] | str = "all-linear") -> int:
    """Parameters of LoRA adapters: rank · (inputs + outputs) for each target of each layer.

    Raises:
        ValueError: a target is not a linear map of a layer.
    """
    sizes = {
        "q_proj": shape.hidden + shape.q_width,
        "k_proj": shape.hidden + shape.kv_width,
        "v_proj": shape.hidden + shape.kv_width,
        "o_proj": shape.hidden + shape.q_width,
        **dict.fromkeys(("gate_proj", "up_proj", "down_proj"), shape.hidden + shape.intermediate),
    }
    names = (
        list(sizes) if targets in ("all-linear", ["all-linear"]) else [targets] if isinstance(targets, str) else targets
    )
    if unknown := [name for name in names if name not in sizes]:
        raise ValueError(f"lora_target_modules: got {unknown[0]!r}, expected all-linear or some of {', '.join(sizes)}")
    return shape.layers * rank * sum(sizes[name] for name in names)


def published_shape(name: str) -> ModelShape | None:
    """The shape of a published model whose name is known here."""
    for pattern, shape in PUBLISHED:
        if match := re.fullmatch(pattern, name):
            return shape or SHAPES.get(match[1])
    return None


def model_shape(name: str) -> ModelShape:
    """The shape of ``name``: a size of the Qwen2.5 family ("7B"), a published name, or whatever has a ``config.json``.

    Raises:
        ValueError: neither a known size nor a readable configuration of a dense decoder.
    """
    if name.upper() in SHAPES:
        return SHAPES[name.upper()]
    if not Path(name).is_dir() and (shape := published_shape(name)) is not None:
        return shape
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"model {name!r}: got neither one of {', '.join(SHAPES)} nor a folder or Hub name with a config.json "
            f"({str(error).splitlines()[0]})"
        ) from error
    missing = [
        key
        for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        if not hasattr(config, key)
    ]
    if missing or hasattr(config, "num_experts"):
        raise ValueError(
            f"model {Path(name).name!r}: got a {config.model_type} configuration"
            f"{f' without {missing}' if missing else ' with experts'}, expected a dense decoder; name the nearest size "
            f"instead: {', '.join(SHAPES)}"
        )
    return ModelShape(
        hidden=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or config.num_attention_heads,
        intermediate=config.intermediate_size,
        vocab=config.vocab_size,
        tied=bool(config.tie_word_embeddings),
        qkv_bias=config.model_type == "qwen2" or bool(getattr(config, "attention_bias", False)),
        head_dim=getattr(config, "head_dim", None),
    )
