"""Is this PRM good, and is it safe to train against?"""
