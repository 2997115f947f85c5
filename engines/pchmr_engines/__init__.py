"""What an exported engine is on disk, and how one runs."""

from .backends import engine_from_onnx
from .bundle import Bundle, write_bundle
from .engine import Caps, Context, Engine, TensorSpec

__all__ = [
    "Bundle",
    "Caps",
    "Context",
    "Engine",
    "TensorSpec",
    "engine_from_onnx",
    "write_bundle",
]
