"""The tracked frame on an NVIDIA GPU: two streams, one CUDA graph, results down at the end; or, of
bundles and options for which that is not written, the networks alone.

Scheduling is written against `device.Device`, so that it can be proven without a GPU; no GPU has
executed it yet.
"""
