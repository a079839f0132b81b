"""The settings of a toy world, which determine completely what is built."""

from dataclasses import asdict, dataclass, fields

from rlhf_prm.toyworld.demonstrator import WRONG_FACTS

LABEL_SOURCES = ("consensus", "confirmed", "mc", "judge", "gold", "outcome")  # of the PRM's solutions


@dataclass(frozen=True)
class ToyWorldSettings:
    """What to build. Equal settings give equal worlds; another seed gives an independent one.

    Args:
        seed: decides the problems, the demonstrator's wrong facts, the policy, the judge and the PRM.
        filler: the demonstrator sometimes writes a line without content. No first error is ever on such a
            line, so the PRM learns to score it high: a world whose process reward can be hacked.
        long_chains: chains of 7-9 operations in place of 3-5, so that few rollouts end right: a sparse outcome.
        gold_fraction: share of the training prompts that have a gold answer; ``solution`` is None on the others.
            The PRM's own problems always have one.
        label_source: the labels of the PRM's solutions: ``consensus`` of ``mc`` (Monte Carlo) and ``judge``, either of
            the two alone, ``confirmed`` (the judge's, if no completion from its first error ends right), ``gold``
            (the exact checker), or ``outcome``: the verdict on the answer, from which an outcome reward model learns.
        wrong_facts: share of the facts that the demonstrator believes wrongly: the policy that learns from it is right
            in about 30 % of its solutions at 0.35, and in about 60 % at 0.1.
        train_problems, eval_problems: prompts for reinforcement learning, and held-out ones.
        sft_updates, sft_batch, sft_learning_rate: supervised fine-tuning of the policy on demonstrations.
        labelled_solutions: solutions sampled from the policy and annotated, one per problem.
        mc_completions: Monte-Carlo completions from every step prefix.
        judge_flips: share of the judge's step verdicts that are wrong, half of them at random, half systematically.
        judge_votes: answers of the judge about every solution; the first error with the most votes is taken, a tie
            gives no label. Votes remove the random half of its errors only.
        prm_rows: most labelled solutions the PRM is trained on (None: all that the label source keeps).
        prm_updates, prm_batch, prm_learning_rate: training of the PRM; the updates are an upper limit.
        prm_held_out: share of its labelled solutions that the PRM is measured on and not trained on.
        prm_eval_every, prm_patience: updates between measurements of the PRM; its training ends when ``prm_patience``
            measurements in a row bring no better first-error F1 (or AUROC, where right solutions are too few for F1).
            The best weights are kept.
    """

    seed: int = 0
    filler: bool = False
    long_chains: bool = False
    gold_fraction: float = 1.0
    label_source: str = "consensus"
    wrong_facts: float = WRONG_FACTS
    train_problems: int = 4096
    eval_problems: int = 2048
    sft_updates: int = 250
    sft_batch: int = 64
    sft_learning_rate: float = 4e-3
    labelled_solutions: int = 4000
    mc_completions: int = 4
    judge_flips: float = 0.1
    judge_votes: int = 1
    prm_rows: int | None = None
    prm_updates: int = 600
    prm_batch: int = 64
    prm_learning_rate: float = 1e-3
    prm_held_out: float = 0.1
    prm_eval_every: int = 50
    prm_patience: int = 4

    def __post_init__(self) -> None:
        if self.label_source not in LABEL_SOURCES:
            raise ValueError(f"label_source: got {self.label_source!r}, expected one of {', '.join(LABEL_SOURCES)}")
        for name in ("gold_fraction", "judge_flips", "wrong_facts"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected a share between 0 and 1")
        if not 0.0 < self.prm_held_out < 1.0:
            raise ValueError(f"prm_held_out: got {self.prm_held_out}, expected a share above 0 and below 1")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type in ("int", int) and field.name != "seed" and value < 1:
                raise ValueError(f"{field.name}: got {value}, expected at least 1")
        if self.prm_rows is not None and self.prm_rows < 1:
            raise ValueError(f"prm_rows: got {self.prm_rows}, expected at least 1, or None for all rows")

    @property
    def operations(self) -> tuple[int, int]:
        """Fewest and most operations in a chain."""
        return (7, 9) if self.long_chains else (3, 5)

    @property
    def max_completion_length(self) -> int:
        """Tokens a completion may have: about three times what a right one of middling length needs."""
        return 160 if self.long_chains else 96

    def subset(self, *names: str) -> dict:
        """The named settings as a dict: what a cached stage depends on."""
        values = asdict(self)
        return {name: values[name] for name in names}
