"""Evaluations of PRMs: how good a PRM is, and whether it is safe to train against."""
