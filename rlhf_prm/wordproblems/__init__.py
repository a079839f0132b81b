"""The second laboratory: a real language model on word problems in varied English, with exact step labels.

world = build_world(WordWorldSettings(seed=0))
world.policy_path, world.prm_path, world.train_dataset, world.eval_dataset
"""

from rlhf_prm.wordproblems.settings import SCALES, WordWorldSettings
from rlhf_prm.wordproblems.world import WordWorld, build_world, evaluate_completions

__all__ = ["SCALES", "WordWorld", "WordWorldSettings", "build_world", "evaluate_completions"]
