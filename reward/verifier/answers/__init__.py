"""Finds final answers in completions (`extract`) and compares them with gold answers (`judge`)."""
