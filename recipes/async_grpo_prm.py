r"""Asynchronous GRPO: a rollout worker samples and scores while the trainer trains. Policy, PRM and trainer are apart:

export VLLM_SERVER_DEV_MODE=1
CUDA_VISIBLE_DEVICES=1 vllm serve POLICY --dtype float32 --weight-transfer-config '{"backend":"nccl"}' --port 8000
CUDA_VISIBLE_DEVICES=2 vllm serve PRM --runner pooling --port 8001 \
    --pooler-config '{"pooling_type":"STEP","step_tag_id":ID}'
CUDA_VISIBLE_DEVICES=0 accelerate launch --num_processes 1 recipes/async_grpo_prm.py \
    --config recipes/configs/async_qwen2.5-math-1.5b_prm-7b.yaml
"""

from trl.experimental.async_grpo import AsyncGRPOConfig

from rlhf_prm.runs.arguments import parse
from rlhf_prm.runs.asynchronous import AsyncArguments, train_asynchronously
from rlhf_prm.runs.errors import user_errors

ARGUMENTS = (AsyncArguments, AsyncGRPOConfig)


def main() -> None:
    with user_errors():
        arguments, config = parse(ARGUMENTS)
        credit = arguments.credit()  # what settings alone can tell, before a model is loaded
    print(f"method {credit.method}; samples from {config.vllm_server_base_url}", flush=True)
    train_asynchronously(arguments, config)


if __name__ == "__main__":
    main()
