"""The audit: whether a PRM is safe to train against, measured on the policy's own samples, with a verdict per line."""

from rlhf_prm.evaluation.audit.lines import RULES, AuditLine, AuditRule
from rlhf_prm.evaluation.audit.probes import PROBES, ProbeTexts
from rlhf_prm.evaluation.audit.run import Audit, AuditSettings, audit

__all__ = ["PROBES", "RULES", "Audit", "AuditLine", "AuditRule", "AuditSettings", "ProbeTexts", "audit"]
