"""The cost of each scorer compared with outcome-only: processor seconds per update, and weights, on the toy world.

python benchmarks/scorers.py                          # some minutes on one core
python benchmarks/scorers.py --updates 4 --scorers prm teacher implicit
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM

from rlhf_prm.prm import load_prm
from rlhf_prm.prm.log_ratio import LogRatioScorer
from rlhf_prm.prm.token_model import load_token_model
from rlhf_prm.prm_training.implicit import ImplicitPRM, ImplicitSettings
from rlhf_prm.prm_training.implicit_models import AdapterModel, TwoModels
from rlhf_prm.prm_training.refresh import RefreshSettings
from rlhf_prm.rl.live_values import LiveMonteCarloScorer
from rlhf_prm.toyworld import ToyWorldSettings, build_world
from rlhf_prm.toyworld.oracle import OracleScorer
from rlhf_prm.toyworld.quick_grpo import Regime, quick_grpo
from rlhf_prm.toyworld.world import ToyWorld

LORA = {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "down_proj"]}


def scorers(world: ToyWorld) -> dict[str, tuple[str, Callable[[], Any], dict[str, Any]]]:
    """Name → (method, how the scorer is made, further arguments of ``quick_grpo``)."""
    policy, prm = str(world.policy_path), str(world.prm_path)
    refresh = RefreshSettings(every=10, rows=256, updates=60, labels="judge")
    implicit = ImplicitSettings(learning_rate=1e-4)

    def adapter() -> ImplicitPRM:
        return ImplicitPRM(AdapterModel(AutoModelForCausalLM.from_pretrained(policy), LoraConfig(**LORA)), implicit)

    return {
        "outcome": ("outcome", lambda: None, {}),
        "oracle": ("immediate", OracleScorer, {}),
        "prm": ("immediate", lambda: load_prm(prm), {}),
        "refresh": ("immediate", lambda: load_prm(prm), {"refresh": refresh}),
        "vine": ("vine", lambda: LiveMonteCarloScorer(4), {}),
        "teacher": ("distil", lambda: LogRatioScorer(load_token_model(policy)), {}),
        "self": ("spro", lambda: LogRatioScorer(load_token_model(policy), sign=-1), {}),
        "implicit": (
            "prime",
            lambda: ImplicitPRM(TwoModels(load_token_model(policy), load_token_model(policy)), implicit),
            {},
        ),
        "implicit_lora": ("prime", adapter, {}),
    }


def weights_of(scorer: Any) -> int:
    """Bytes of the weights that the scorer holds, each tensor once."""
    found: dict[int, int] = {}
    modules = [getattr(scorer, "placement", None), getattr(getattr(scorer, "model", None), "placement", None)]
    models = getattr(scorer, "models", None)
    modules += [getattr(getattr(models, name, None), "placement", None) for name in ("model", "reference", "_tokens")]
    for placement in modules:
        if placement is not None:
            found |= {p.data_ptr(): p.numel() * p.element_size() for p in placement.reader.parameters()}
    return sum(found.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=21, help="policy updates of each (refreshed twice)")
    parser.add_argument("--world-settings", default="{}", help="JSON of ToyWorldSettings")
    parser.add_argument("--cache", default="runs/cache")
    parser.add_argument("--scorers", nargs="*", help="only these")
    parser.add_argument("--json", help="also write the rows here")
    args = parser.parse_args()
    torch.set_num_threads(1)
    world = build_world(ToyWorldSettings(**json.loads(args.world_settings)), args.cache)
    regime, rows = Regime(max_steps=args.updates), []
    print(f"{'scorer':<14}{'method':<12}{'CPU-s/update':>14}{'× outcome':>11}{'weights MB':>12}{'built in s':>12}")
    for name, (method, make, more) in scorers(world).items():
        if args.scorers and name not in {"outcome", *args.scorers}:
            continue
        start = time.perf_counter()
        scorer = make()
        built = time.perf_counter() - start
        told = quick_grpo(world, scorer, method, {}, regime, **more)
        seconds = told["cpu_seconds"] / args.updates
        refreshed = [row["seconds"] for row in told["refreshes"]]
        rows.append(
            {"scorer": name, "method": method, "seconds": seconds, "weights": weights_of(scorer), "built": built}
        )
        rows[-1] |= {"accuracy": told["accuracy"], "refresh_seconds": refreshed}
        print(
            f"{name:<14}{method:<12}{seconds:>14.2f}{seconds / rows[0]['seconds']:>11.2f}"
            f"{rows[-1]['weights'] / 1e6:>12.2f}{built:>12.2f}"
        )
    if args.json:
        with open(args.json, "w") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
