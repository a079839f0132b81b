"""Is the final answer right? ``MathVerifier`` gives a verdict per completion from a pool of killable workers."""

from reward.verifier.verifier import (
    GIB,
    STATUSES,
    MathVerifier,
    PendingVerdicts,
    Verdict,
    Verifier,
    default_workers,
    status_fractions,
)

__all__ = [
    "GIB",
    "STATUSES",
    "MathVerifier",
    "PendingVerdicts",
    "Verdict",
    "Verifier",
    "default_workers",
    "status_fractions",
]
