"""The tracked frame on an NVIDIA GPU: two streams, one CUDA graph, results down at the end.

Scheduling is written against `device.Device`, so that it can be proven without a GPU; no GPU has
executed it yet.
"""
