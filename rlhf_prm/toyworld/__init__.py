"""The embedded laboratory: chain arithmetic, a tiny imperfect policy, and a PRM made from it."""
