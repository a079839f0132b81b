"""``rlhf-prm plan`` estimates the memory and the time of a run, and suggests changes if it does not fit."""

from rlhf_prm.plan.memory import RunPlan, fits, memory_by_part, peak_bytes
from rlhf_prm.plan.shapes import ModelShape, model_shape
from rlhf_prm.plan.timing import seconds_by_part

__all__ = ["ModelShape", "RunPlan", "fits", "memory_by_part", "model_shape", "peak_bytes", "seconds_by_part"]
