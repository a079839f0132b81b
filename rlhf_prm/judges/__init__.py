"""LLM judges and generative PRMs: forms, readings, cache, budget. Labelling (``annotate``) and scoring share them."""
