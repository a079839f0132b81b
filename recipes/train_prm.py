"""A process reward model from step labels, or with ``--target outcome`` an outcome reward model from verdicts.

accelerate launch recipes/train_prm.py                                                    # the embedded toy world
accelerate launch recipes/train_prm.py --config recipes/configs/train_prm_qwen2.5-math-7b.yaml
accelerate launch --config_file recipes/accelerate/zero3_2x8.yaml recipes/train_prm.py --config …
"""

from pathlib import Path

from trl import ModelConfig, get_peft_config

from rlhf_prm.prm_training.config import PRMConfig
from rlhf_prm.prm_training.trainer import PRMTrainer
from rlhf_prm.rl.master_weights import refuse_low_precision
from rlhf_prm.runs.arguments import parse
from rlhf_prm.runs.checkpoints import checkpoint_to_resume
from rlhf_prm.runs.errors import disk_errors, ready_folder, user_errors
from rlhf_prm.runs.prm import PRMRecipeArguments, load_prm_sources, quality

ARGUMENTS = (PRMRecipeArguments, PRMConfig, ModelConfig)
TOY_WORLD = Path(__file__).parent / "configs" / "train_prm_toyworld.yaml"


def main() -> None:
    with user_errors():
        recipe, config, model_args = parse(ARGUMENTS, default_config=TOY_WORLD)
        checkpoint = checkpoint_to_resume(config)
        ready_folder(config.output_dir)
        load = {"dtype": model_args.dtype, "attn_implementation": model_args.attn_implementation}
        config.model_init_kwargs = {**load, "revision": model_args.model_revision} | (config.model_init_kwargs or {})
        if not model_args.use_peft:
            refuse_low_precision(config.model_init_kwargs["dtype"], config, config.learning_rate)
        sources = load_prm_sources(recipe, model_args.model_name_or_path, config.seed, config.target)
        trainer = PRMTrainer(
            model=sources.model,
            args=config,
            train_dataset=sources.train_dataset,
            eval_dataset=sources.eval_dataset,
            peft_config=get_peft_config(model_args),
        )
    with disk_errors(config.output_dir):
        trainer.train(resume_from_checkpoint=checkpoint)
        trainer.save_model()
        held_out = {"eval": trainer.eval_dataset}
        if sources.exact_dataset is not None:
            held_out["exact"] = trainer.encoded(sources.exact_dataset, "exact")
        for name, rows in held_out.items():
            if rows is not None:
                metrics = trainer.evaluate(rows, metric_key_prefix=name)
                trainer.log_metrics(name, metrics)
                trainer.save_metrics(name, metrics)
                if trainer.is_world_process_zero():
                    done = {"updates": trainer.state.global_step, "learning_rate": config.learning_rate}
                    print(f"{name}: {quality(metrics, prefix=name, target=config.target, **done)}")


if __name__ == "__main__":
    main()
