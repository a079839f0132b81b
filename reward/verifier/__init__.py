"""Decides whether final answers are right. ``MathVerifier`` gives one verdict per completion."""

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
