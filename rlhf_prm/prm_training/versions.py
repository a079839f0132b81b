"""Keeps versions of a scorer's weights on disk: newest, previous, first, and those that checkpoints need."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlhf_prm.files import read_json, whole
from rlhf_prm.prm.decoders import decoder_class, head_name
from rlhf_prm.prm.qwen2 import Qwen2ForProcessRewardModel
from rlhf_prm.prm.scorer import PRMScorer
from rlhf_prm.prm_training.ranks import Ranks

_OF_QWEN2 = ("qwen_prm", "reasonflux_prm")  # families by the layout of their checkpoints
_OF_ANY_DECODER = ("decoder_prm", "token_classification")
STATE_FILE = "prm_refresh.json"  # in a checkpoint: the state of the refresh
Weights = dict[str, Tensor]


class Versions:
    """The weights of ``scorer``: version 0 as it was loaded, and one more for every swap.

    Args:
        folder: of the files ``version_<n>.pt``, which rank 0 writes and reads; None: nothing is kept.
    """

    def __init__(self, scorer: PRMScorer, folder: Path | None) -> None:
        self.scorer, self.folder = scorer, folder
        self.newest = 0

    def weights(self) -> Weights:
        """A copy of the present weights, in CPU memory."""
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in self._state().items()}

    def put(self, weights: Weights) -> None:
        """Load these weights, which every rank has, into the scorer."""
        with self.scorer.placement.learning() as reader, torch.no_grad():
            for name, tensor in reader.state_dict().items():
                tensor.copy_(weights[name])

    def add(self, old: Weights) -> None:
        """Record the present weights as a new version; ``old`` are those of the previous version."""
        if self.newest == 0:
            self._keep(0, old)
        self.newest += 1
        self._keep(self.newest, self._state())
        self._prune()

    def load(self, version: int) -> None:
        """Load a kept version into the scorer; version 0 of an unchanged scorer needs no file.

        Raises:
            ValueError: the folder does not have it.
        """
        if version == self.newest:
            return
        ranks = Ranks()
        path = None if self.folder is None else self._file(version)
        found = ranks.from_first(lambda: path is not None and path.is_file())
        if not found:
            raise ValueError(f"PRM refresh: got no weights of version {version} in {self.folder}, expected {path}")
        kept = torch.load(path, map_location="cpu", weights_only=True) if ranks.rank == 0 else None
        with self.scorer.placement.learning() as reader, torch.no_grad():
            for name, tensor in reader.state_dict().items():
                if kept is not None:
                    tensor.copy_(kept[name])
                ranks.like_first([tensor])
        self.newest = version

    def export(self, folder: Path, tokenizer: Any) -> bool:
        """Write the present weights as a PRM that ``load_prm`` loads.

        Returns:
            False, with nothing written, for families that are not a body with a head of two labels.
        """
        reader, family = self.scorer.placement.reader, self.scorer.family.name
        if family not in (*_OF_QWEN2, *_OF_ANY_DECODER):
            return False
        config = reader.body.config
        made = Qwen2ForProcessRewardModel if family in _OF_QWEN2 else decoder_class(config)
        with torch.device("meta"):
            layout = made(config)
        parts = ((layout.base_model_prefix, reader.body), (head_name(layout), reader.head))
        state = {f"{part}.{name}": t for part, module in parts for name, t in module.state_dict().items()}
        layout.save_pretrained(folder, state_dict={name: tensor.detach().cpu() for name, tensor in state.items()})
        tokenizer.save_pretrained(folder)
        return True

    def _state(self) -> Weights:
        return self.scorer.placement.reader.state_dict()

    def _file(self, version: int) -> Path:
        return self.folder / f"version_{version}.pt"

    def _keep(self, version: int, weights: Weights) -> None:
        if self.folder is None or Ranks().rank != 0:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with whole(self._file(version)) as partial:
            torch.save({name: tensor.detach().cpu() for name, tensor in weights.items()}, partial)

    def _prune(self) -> None:
        if self.folder is None or Ranks().rank != 0:
            return
        kept = {0, self.newest - 1, self.newest, *_needed(self.folder.parent.glob(f"checkpoint-*/{STATE_FILE}"))}
        for path in self.folder.glob("version_*.pt"):
            if int(path.stem.removeprefix("version_")) not in kept:
                path.unlink()


def _needed(states: Iterable[Path]) -> set[int]:
    """The versions that checkpoints refer to."""
    return {read_json(path)["version"] for path in states}
