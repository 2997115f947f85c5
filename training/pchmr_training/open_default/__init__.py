"""The open default's small networks, mesh generator G and lifter L, and their training."""
