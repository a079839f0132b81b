"""Will dense rewards pay? Measured on the policy's own samples before any GPU hour is spent, with a verdict."""
