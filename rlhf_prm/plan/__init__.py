"""``rlhf-prm plan``: will this run fit, where does the memory go, how long is an update, and what to change."""

from rlhf_prm.plan.memory import RunPlan, fits, memory_by_part, peak_bytes
from rlhf_prm.plan.shapes import ModelShape, model_shape
from rlhf_prm.plan.timing import seconds_by_part

__all__ = ["ModelShape", "RunPlan", "fits", "memory_by_part", "model_shape", "peak_bytes", "seconds_by_part"]
