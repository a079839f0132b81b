"""A reward model from pairs (better, worse) of answers to one problem, with margins bounded by their similarity.

accelerate launch recipes/train_pairs.py --model_name_or_path Qwen/Qwen2.5-1.5B --train_samples samples.jsonl
accelerate launch recipes/train_pairs.py --model_name_or_path … --train_data pairs.jsonl --loss bradley_terry
"""

import sys
from pathlib import Path

from trl import ModelConfig

from rlhf_prm.prm_training.pair_config import PairConfig
from rlhf_prm.prm_training.pair_trainer import PairTrainer
from rlhf_prm.rl.master_weights import refuse_low_precision
from rlhf_prm.runs.arguments import parse
from rlhf_prm.runs.checkpoints import checkpoint_to_resume
from rlhf_prm.runs.errors import disk_errors, ready_folder, user_errors
from rlhf_prm.runs.pairs import PairRecipeArguments, load_pairs

ARGUMENTS = (PairRecipeArguments, PairConfig, ModelConfig)
GIVEN = ("--model_name_or_path", "--config", "--help", "-h")  # there is no toy run without any of these


def main() -> None:
    with user_errors():
        if not any(argument.startswith(GIVEN) for argument in sys.argv[1:]):
            raise ValueError("expected --model_name_or_path, a decoder's folder or Hub name, and pairs or samples")
        recipe, config, model_args = parse(ARGUMENTS, default_config=Path(__file__))
        if model_args.model_name_or_path is None or model_args.use_peft:
            raise ValueError("expected --model_name_or_path, a decoder's folder or Hub name, and no use_peft")
        checkpoint = checkpoint_to_resume(config)
        ready_folder(config.output_dir)
        load = {"dtype": model_args.dtype, "attn_implementation": model_args.attn_implementation}
        config.model_init_kwargs = {**load, "revision": model_args.model_revision} | (config.model_init_kwargs or {})
        refuse_low_precision(config.model_init_kwargs["dtype"], config, config.learning_rate)
        train, held_out = load_pairs(recipe, config.seed)
        trainer = PairTrainer(model_args.model_name_or_path, config, train, held_out or None)
    with disk_errors(config.output_dir):
        trainer.train(resume_from_checkpoint=checkpoint)
        trainer.save_model()
        if held_out:
            metrics = trainer.evaluate()
            trainer.log_metrics("eval", metrics)
            trainer.save_metrics("eval", metrics)


if __name__ == "__main__":
    main()
