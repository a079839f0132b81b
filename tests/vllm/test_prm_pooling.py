"""vLLM serves what we save: the scores of its pooling, in process and over HTTP, are ours."""

import json
import os
import subprocess
import sys

import prm_checkpoints
import pytest
from pooling_server import free_port
from prm_rollouts import ragged

from rlhf_prm.prm import load_prm
from tests.vllm.serving import ON_CPU

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module", autouse=True)
def vllm_is_here():
    pytest.importorskip("vllm")


IN_PROCESS = """
import json, sys
from vllm import LLM
from vllm.config import PoolerConfig
folder, tag_id, ids = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
pooler = PoolerConfig(pooling_type="STEP", step_tag_id=tag_id)
llm = LLM(folder, runner="pooling", pooler_config=pooler, dtype="float32", enforce_eager=True, max_model_len=512,
          gpu_memory_utilization=0.1)
outputs = llm.encode([{"prompt_token_ids": row} for row in ids], pooling_task="token_classify")
print("SCORES", json.dumps([output.outputs.data[:, 1].tolist() for output in outputs]))
"""


@pytest.mark.parametrize("name", ["qwen2", *prm_checkpoints.DECODERS])
def test_pooling_in_process(name, tmp_path):
    """Of everything that is trained here, from whatever base."""
    folder = tmp_path / name
    prm_checkpoints.qwen_prm(folder) if name == "qwen2" else prm_checkpoints.decoder_prm(folder, name)
    scorer = load_prm(folder)
    problems, steps = ragged()
    ids = [scorer.family.rendered(scorer.texts, p, s).ids for p, s in zip(problems, steps, strict=True)]
    arguments = [str(folder), str(scorer.texts.tag_id), str(ids)]
    command = [sys.executable, "-c", IN_PROCESS, *arguments]
    done = subprocess.run(command, env=os.environ | ON_CPU, capture_output=True, text=True, timeout=1200)
    marked = [line for line in done.stdout.splitlines() if line.startswith("SCORES ")]
    assert marked, done.stdout[-1000:] + done.stderr[-3000:]
    expected = scorer.score(problems, steps)
    assert json.loads(marked[0][7:]) == [pytest.approx(row, abs=1e-5) for row in expected]


@pytest.mark.parametrize("family", ["qwen_prm", "decoder_prm", "token_classification"])
def test_pooling_over_http(tmp_path, family):
    """The command of the error message starts a server whose scores are those in process."""
    folder = getattr(prm_checkpoints, family)(tmp_path / "prm")
    port = free_port()
    scorer = load_prm(folder, placement="server", server_url=f"http://127.0.0.1:{port}", server_deadline=900.0)
    log = (tmp_path / "log").open("w")
    options = " --dtype float32 --enforce-eager --max-model-len 512 --gpu-memory-utilization 0.1"
    command = f"exec {os.path.dirname(sys.executable)}/{scorer.command()}{options}"
    server = subprocess.Popen(["bash", "-c", command], env=os.environ | ON_CPU, stdout=log, stderr=log)
    try:
        scores = scorer.score(*ragged())  # waits for the server, as it would for one that restarts
    finally:
        server.terminate()
        server.wait(60)
        scorer.close()
    assert scores == [pytest.approx(row, abs=1e-5) for row in load_prm(folder).score(*ragged())]
