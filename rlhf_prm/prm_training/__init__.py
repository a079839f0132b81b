"""Training a process reward model: data, losses, two stages, when to stop."""
