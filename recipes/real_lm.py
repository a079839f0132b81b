"""The whole pipeline on a real language model: SFT, samples, labels, PRMs, preflight, RL with and without a PRM.

python recipes/real_lm.py                             # make real: SmolLM2-135M-Instruct, two CPU cores
python recipes/real_lm.py --scale smoke               # every stage in minutes, at a size that learns nothing
python recipes/real_lm.py --settings '{"model": "HuggingFaceTB/SmolLM2-360M-Instruct"}'
python recipes/real_lm.py --stage preflight_mc        # one stage, in this process

A stage begins as soon as those that it needs have finished, --parallel of them at once. Every stage is kept under
--root and run once: the same command continues a stopped run. After --budget minutes no stage begins.
"""

import argparse
import json
import os
import signal
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two processes of one thread are faster than one of two

from rlhf_prm.ablation.config import AblationConfig, load_config, merged
from rlhf_prm.ablation.launch import cell_runs, run_cells
from rlhf_prm.ablation.markdown import markdown
from rlhf_prm.ablation.page import write_page
from rlhf_prm.ablation.table import build_table
from rlhf_prm.evaluation.samples import SampledProblem
from rlhf_prm.files import read_json, read_json_lines, write_json, write_json_lines
from rlhf_prm.jobs import Job, JobsStopped, run_jobs
from rlhf_prm.preflight.page import write_preflight
from rlhf_prm.preflight.run import PreflightSettings, preflight
from rlhf_prm.prm import load_prm
from rlhf_prm.settings import build
from rlhf_prm.toyworld.prm_check import checked_samples
from rlhf_prm.wordproblems import SCALES, WordWorld, WordWorldSettings, build_world

ABLATION = Path(__file__).parent / "configs" / "ablation_word_problems.yaml"
SOURCES = ("judge", "mc", "gold")  # the first is what the policy is trained against
METHODS = ("trusted", "outcome", "ceiling")
NEEDS = {  # of the stages that may begin, the first begins; those that the longest chain waits for stand before others
    "policy": (),
    "prm_judge": ("policy",),
    "rollouts": ("policy",),
    "preflight_judge": ("prm_judge", "rollouts"),
    "rl_trusted": ("preflight_judge",),
    "rl_outcome": ("policy",),
    "rl_ceiling": ("policy",),
    "prm_mc": ("prm_judge",),  # the same solutions
    "prm_gold": ("prm_judge",),
    "preflight_mc": ("prm_mc", "rollouts"),
    "preflight_gold": ("prm_gold", "rollouts"),
}
UPDATES = {"full": 40, "small": 10, "smoke": 1}
PREFLIGHT = {"full": (64, 8), "small": (24, 4), "smoke": (4, 2)}  # problems, rollouts of each
PROBED = {"full": 16, "small": 4, "smoke": 0}  # problems whose rollouts are rewritten
MEASURES = ("first_error_f1", "step_auroc_same_position", "auroc_min", "approval_lift")
ROLLOUTS, SETTINGS = "rollouts.jsonl", "settings.json"


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("runs/real"), help="folder of all stages (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", choices=SCALES, default="full", help="(%(default)s)")
    parser.add_argument("--settings", type=json.loads, default={}, help="JSON of WordWorldSettings over the scale's")
    parser.add_argument("--budget", type=float, default=float("inf"), help="minutes; no stage is begun after them")
    parser.add_argument("--parallel", type=int, default=2, help="stages at once, a thread each (%(default)s)")
    parser.add_argument("--stage", choices=NEEDS, help="run only this stage")
    return parser.parse_args()


class Pipeline:
    """The stages of one scale and seed in a folder."""

    def __init__(self, folder: Path, scale: str, settings: dict[str, Any]) -> None:
        self.folder, self.scale, self.settings = folder, scale, settings
        written = folder / SETTINGS
        if written.exists() and (had := read_json(written)) != settings:
            key = next(key for key in {**had, **settings} if had.get(key) != settings.get(key))
            raise SystemExit(
                f"{folder} was begun with {key}={had.get(key)!r}, got {settings.get(key)!r}; give another --root, or "
                f"delete everything in it but {folder / 'cache'}"
            )
        if not written.exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_json(written, settings)

    def world(self, source: str, with_prm: bool = True) -> WordWorld:
        """The world whose PRM is trained on the labels of ``source``, built where it is not there yet."""
        settings = build(WordWorldSettings, {**self.settings, "label_source": source}, "--settings")
        return build_world(settings, self.folder / "cache", with_prm=with_prm)

    def finished(self, stage: str) -> bool:
        """Whether the stage needs no process any more. Those kept in the cache are always asked, and find it there."""
        kind, _, of = stage.partition("_")
        if kind == "rl":
            return cell_runs(self.ablation(of))[0].state == "done"
        results = {"rollouts": self.folder / ROLLOUTS, "preflight": self.folder / f"preflight_{of}.json"}
        return kind in results and results[kind].exists()

    def run(self, stage: str) -> None:
        """Run one stage in this process."""
        kind, _, of = stage.partition("_")
        if kind == "rl":
            self.train_policy(of)
        elif kind == "preflight":
            self.check_prm(of)
        elif kind == "rollouts":
            samples = checked_samples(self.world(SOURCES[0], with_prm=False), *PREFLIGHT[self.scale])
            write_json_lines(self.folder / ROLLOUTS, map(asdict, samples))
        else:
            world = self.world(of or SOURCES[0], with_prm=kind == "prm")
            for name, one in world.stages.items():
                print(f"{name:12} {one.seconds:8.1f} s  {'found' if one.cached else 'built'}  {one.path}", flush=True)

    def check_prm(self, source: str) -> None:
        """The preflight of a PRM on rollouts of held-out problems with exact first errors, the same for every PRM."""
        prm = load_prm(str(self.world(source).prm_path), dtype="bfloat16", max_batch_tokens=2048)
        result = preflight(
            prm,
            [SampledProblem(**row) for row in read_json_lines(self.folder / ROLLOUTS)],
            PreflightSettings(probe_problems=PROBED[self.scale], seed=self.settings["seed"]),
            policy=build(WordWorldSettings, self.settings, "--settings").model,
            prm=f"labels: {source}",
        )
        data = self.folder / f"preflight_{source}.json"
        write_preflight(result, data.with_suffix(".html"), data)
        print(source, {name: result.measures.get(name) for name in MEASURES}, result.verdict.headline, flush=True)

    def ablation(self, *methods: str) -> AblationConfig:
        """These methods of the ablation, with this seed in this folder."""
        config = load_config(ABLATION)
        world = {"world_settings": {**self.settings, "label_source": SOURCES[0]}}
        fixed = {**world, "stage_cache": str(self.folder / "cache")}
        if self.scale == "smoke":
            fixed |= {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "num_generations": 4}
            fixed |= {"max_completion_length": 40, "eval_every": 0}
        return replace(
            config,
            fixed=merged(config.fixed, fixed),
            grid={"method": {name: point for name, point in config.grid["method"].items() if name in methods}},
            compare_to={"method": "outcome" if "outcome" in methods else methods[0]},
            seeds=[self.settings["seed"]],
            budget={"updates": UPDATES[self.scale]},
            parallel=1,
            output_dir=str(self.folder / "rl"),
        )

    def train_policy(self, method: str) -> None:
        """RL with one method: outcome-only, the default on the learned PRM, or the ceiling."""
        runs = run_cells(self.ablation(method), retry=True, say=lambda text: print(text, flush=True))
        if failed := [run.folder for run in runs if run.state == "failed"]:
            raise SystemExit(f"{failed[0]}/log.txt says why")

    def report(self) -> None:
        """The table of all policies, its page, and where everything is."""
        config = self.ablation(*METHODS)
        runs = run_cells(config, say=lambda text: print(text, flush=True))
        table = build_table(config, runs)
        print(markdown(table))
        page = write_page(table, runs, self.folder / "rl" / "report.html")
        found = {source: read_json(self.folder / f"preflight_{source}.json") for source in SOURCES}
        for source, one in found.items():
            print(source, {name: one["measures"].get(name) for name in MEASURES}, one["headline"])
        write_json(self.folder / "prms.json", {source: one["measures"] for source, one in found.items()})
        print(f"\nPRMs: {self.folder}/preflight_*.html   policies: {page}   each run: {self.folder}/rl/cells")


def main() -> None:
    arguments = parsed()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))  # what it has started is ended too
    settings = {"seed": arguments.seed, **SCALES[arguments.scale], **arguments.settings}
    if "label_source" in settings:
        raise SystemExit("--settings: got label_source, expected none: all of them are compared")
    build(WordWorldSettings, settings, "--settings")
    folder = (arguments.root / f"{arguments.scale}-seed{settings['seed']}").resolve()
    os.chdir(Path(__file__).parents[1])  # the configurations name files from there
    pipeline = Pipeline(folder, arguments.scale, settings)
    for run in cell_runs(pipeline.ablation(*METHODS)):
        run.check()
    if arguments.stage:
        return pipeline.run(arguments.stage)
    command = [sys.executable, "recipes/real_lm.py", "--root", str(folder.parent), "--scale", arguments.scale]
    command += ["--seed", str(arguments.seed), "--settings", json.dumps(arguments.settings), "--stage"]
    jobs = [Job(stage, [*command, stage], needs, pipeline.finished(stage)) for stage, needs in NEEDS.items()]
    try:
        run_jobs(jobs, arguments.parallel, minutes=arguments.budget, say=lambda text: print(text, flush=True))
    except JobsStopped as stopped:
        raise SystemExit(str(stopped)) from None
    pipeline.report()


if __name__ == "__main__":
    main()
