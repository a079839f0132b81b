"""The embedded laboratory: chain arithmetic, a tiny imperfect policy, and a PRM made from it.

world = build_world(ToyWorldSettings(seed=0))
world.policy_path, world.prm_path, world.train_dataset, world.eval_dataset
"""

from rlhf_prm.toyworld.evaluate import evaluate_completions, evaluate_policy
from rlhf_prm.toyworld.settings import ToyWorldSettings
from rlhf_prm.toyworld.world import ToyWorld, build_world

__all__ = ["ToyWorld", "ToyWorldSettings", "build_world", "evaluate_completions", "evaluate_policy"]
