"""Grids of runs, compared pairwise by seed."""
