"""Checkpoints to ONNX, to engines, to a verified bundle."""
