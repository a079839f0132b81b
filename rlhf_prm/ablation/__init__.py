"""Ablations: a grid of runs of any recipe, compared over paired seeds.

``config`` reads the YAML and makes cells, ``children`` and ``launch`` run them, ``table`` compares, ``markdown`` and
``page`` show. A cell is a folder with ``cell.yaml``, the run's own files, and ``failed.json`` if it failed.
"""
