"""GRPO and PPO that sample with vLLM on CPU, in the training process or from a server; writes down what was logged.

python or accelerate launch … tests/vllm/training_run.py FOLDER ALGORITHM [URL]
(FOLDER/policy and FOLDER/prm are there.)
"""

import functools
import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import vllm._custom_ops
from trl.generation import vllm_generation

from rlhf_prm.prm import load_prm
from rlhf_prm.rl.config import ProcessGRPOConfig
from rlhf_prm.rl.cpu_ranks import prepare_cpu_ranks
from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.rl.ppo import ProcessPPOTrainer
from rlhf_prm.rl.ppo_config import ProcessPPOConfig
from tests.distributed.launch import free_port
from tests.tiny import DigitVerifier, tiny_config, tiny_dataset, tiny_tokenizer
from tests.vllm.store_transfer import StoreClient, send_through_the_store

LOGGED = (
    "loss",
    "sampling/sampling_logp_difference/max",
    "sampling/importance_sampling_ratio/mean",
    "process/num_steps/mean",
)


def colocate() -> dict:
    """The settings; on CPU vLLM packs weights for oneDNN, which sync cannot write to, and bf16 is its default."""
    vllm._custom_ops._supports_onednn = False
    vllm_generation.LLM = functools.partial(vllm_generation.LLM, dtype="float32", enforce_eager=True)
    return {"vllm_mode": "colocate", "vllm_gpu_memory_utilization": 0.1, "vllm_max_model_length": 64}


def server(url: str) -> dict:
    """The settings; weights go through the store."""
    send_through_the_store()
    vllm_generation.VLLMClient = StoreClient
    return {"vllm_mode": "server", "vllm_server_base_url": url, "vllm_group_port": free_port()}


def run(trainer_class, config_class, folder: Path, name: str, **settings) -> dict:
    """Three updates with large steps: without weight sync the engine's log-probabilities would soon be others."""
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    placement = "zero3" if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true" else "replicate"
    config = tiny_config(
        folder / name,
        config_class,
        per_device_train_batch_size=8 // ranks,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        use_vllm=True,
        **settings,
    )
    trainer = trainer_class(
        model=str(folder / "policy"),
        args=config,
        train_dataset=tiny_dataset(),
        processing_class=tiny_tokenizer(),
        step_scorer=load_prm(folder / "prm", placement=placement),
        verifier=DigitVerifier(),
    )
    before = trainer.model.lm_head.weight.detach().clone() if placement == "replicate" else None
    trainer.train()
    trainer.save_model(str(folder / name / "trained"))
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    return {
        "logs": [{key: entry[key] for key in LOGGED} for entry in logs],
        "world_size": trainer.accelerator.num_processes,
        "backend": dist.get_backend() if dist.is_initialized() else None,
        "zero_stage": getattr(trainer.accelerator.state.deepspeed_plugin, "zero_stage", None),
        "moved": None if before is None else (trainer.model.lm_head.weight - before).abs().max().item(),
    }


def main() -> None:
    torch.set_num_threads(1)
    prepare_cpu_ranks()
    folder, algorithm, *url = Path(sys.argv[1]), *sys.argv[2:]
    settings = server(*url) if url else colocate()
    if algorithm == "grpo":
        result = run(ProcessGRPOTrainer, ProcessGRPOConfig, folder, "grpo", method="immediate", **settings)
    else:
        settings |= {"num_generations": 1, "critic_learning_rate": 1e-2}
        result = run(ProcessPPOTrainer, ProcessPPOConfig, folder, "ppo", **settings)
    (folder / f"rank{os.environ.get('RANK', '0')}.json").write_text(json.dumps(result))
    os._exit(0)  # vLLM's engine hangs about at exit


if __name__ == "__main__":
    main()
