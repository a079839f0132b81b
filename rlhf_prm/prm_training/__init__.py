"""Training of process reward models: data, losses, two stages, early stopping."""
