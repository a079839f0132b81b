"""The preflight: whether dense rewards will pay, measured on the policy's own samples before training."""
