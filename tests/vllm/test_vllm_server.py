"""Server mode on CPU: what works without CUDA, how the rest is refused, and the loop with a stand-in for NCCL."""

import sys
import time

import httpx
import pytest
import torch
from transformers import AutoModelForCausalLM

from rlhf_prm.prm import load_prm
from rlhf_prm.rl.config import ProcessGRPOConfig
from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from tests.distributed.launch import ROOT, free_port
from tests.tiny import DigitVerifier, tiny_config, tiny_dataset, tiny_tokenizer
from tests.vllm.serving import serving
from tests.vllm.trained import trains_alone, trains_under_zero3

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(2400)]
NEEDS_CUDA = "Weight synchronization runs on vLLM's NCCL weight-transfer engine, which needs a CUDA device, got 'cpu'"
NO_DEVICE = "Cannot access accelerator device when none is available"


def serve(models, log, *options):
    """The server that TRL's ``trl vllm-serve`` starts, for a tiny policy."""
    from trl.scripts.vllm_serve import ScriptArguments, build_command

    port = free_port()
    arguments = ScriptArguments(
        str(models / "policy"), host="127.0.0.1", port=port, dtype="float32", max_model_len=64, enforce_eager=True
    )
    arguments.gpu_memory_utilization = 0.1
    command = build_command(arguments, list(options))
    assert command[0] == sys.executable
    return serving(command, port, log, VLLM_SERVER_DEV_MODE="1", PYTHONPATH=str(ROOT))


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return tmp_path_factory.mktemp("log") / "vllm.log"


@pytest.fixture(scope="module")
def url(models, log):
    if torch.cuda.is_available():
        pytest.skip("is about a machine without CUDA")
    with serve(models, log) as url:
        yield url


def check_samples(client, policy) -> None:
    """What the server samples has the log-probabilities that transformers gives it."""
    prompts = [[8, 14, 9], [10, 11, 12, 13]]
    output = client.generate(prompts, n=2, max_tokens=8)
    assert output["prompt_ids"] == prompts and len(output["completion_ids"]) == 4
    for i, ids in enumerate(output["completion_ids"]):
        prompt = prompts[i // 2]
        with torch.no_grad():
            logits = policy(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
        wanted = logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None])
        torch.testing.assert_close(torch.tensor(output["logprobs"][i]), wanted, atol=1e-4, rtol=1e-4)


def test_generates_but_takes_no_weights_without_cuda(models, url, log, tmp_path):
    """TRL's client refuses before it asks the server; the server, asked anyway, answers 500. Neither hangs."""
    from trl.generation.vllm_client import VLLMClient
    from vllm.distributed.weight_transfer.nccl_common import trainer_init

    client = VLLMClient(base_url=url)
    policy = AutoModelForCausalLM.from_pretrained(models / "policy")
    check_samples(client, policy)
    with pytest.raises(NotImplementedError, match=NEEDS_CUDA):
        client.init_communicator("cpu")

    group = {"master_address": "127.0.0.1", "master_port": free_port(), "world_size": 2}
    asked = httpx.post(
        f"{url}/init_weight_transfer_engine", json={"init_info": group | {"rank_offset": 1}}, timeout=120
    )
    assert asked.status_code == 500 and f"RuntimeError: {NO_DEVICE}" in log.read_text()
    with pytest.raises(RuntimeError, match=NO_DEVICE):  # the trainer's side, were TRL not to refuse
        trainer_init(group)
    check_samples(client, policy)


def test_the_trainer_says_that_it_needs_cuda(models, url, tmp_path):
    """When it is made, not at the first update, and within two minutes."""
    settings = {"use_vllm": True, "vllm_mode": "server", "vllm_server_base_url": url}
    config = tiny_config(tmp_path, ProcessGRPOConfig, method="immediate", **settings)
    start = time.monotonic()
    with pytest.raises(NotImplementedError, match=NEEDS_CUDA):
        ProcessGRPOTrainer(
            model=str(models / "policy"),
            args=config,
            train_dataset=tiny_dataset(),
            processing_class=tiny_tokenizer(),
            step_scorer=load_prm(models / "prm"),
            verifier=DigitVerifier(),
        )
    assert time.monotonic() - start < 120


@pytest.fixture(scope="module")
def store_url(models, tmp_path_factory):
    """The same server, but for the three names that ``store_transfer.py`` replaces."""
    log = tmp_path_factory.mktemp("log") / "vllm.log"
    with serve(models, log, "--worker-cls", "tests.vllm.store_worker.StoreWorker") as url:
        yield url


def test_weights_through_the_store(models, store_url):
    """GRPO in one process: the whole loop, the server's weights in step with the trainer's."""
    trains_alone(models, "grpo", store_url)


def test_weights_of_zero3_through_the_store(models, store_url):
    """The second trainer of the same server: the policy gathered from two ranks, the critic kept back."""
    trains_under_zero3(models, store_url)
