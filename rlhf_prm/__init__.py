"""Process supervision for LLM reasoning, on TRL."""

__version__ = "0.2.0"
