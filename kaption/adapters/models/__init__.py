"""Model weights and the choice of an encoder for this machine."""
