"""``vllm serve --worker-cls tests.vllm.store_worker.StoreWorker``: vLLM's CPU worker, its weights from the store."""

from vllm.v1.worker.cpu_worker import CPUWorker

from tests.vllm.store_transfer import send_through_the_store


class StoreWorker(CPUWorker):
    def __init__(self, *arguments, **keywords) -> None:
        send_through_the_store()
        super().__init__(*arguments, **keywords)
