"""Catching reward hacking while it happens: measures, rules, the callback, and the weights to go back to."""
