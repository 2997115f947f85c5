"""Who may import whom: the arrows of the house, read from the source with ast."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = {
    "pchmr_kernels": ROOT / "kernels",
    "pchmr_engines": ROOT / "engines",
    "pchmr": ROOT / "sdk",
    "pchmr_training": ROOT / "training",
    "pchmr_export": ROOT / "export",
}
MAY_IMPORT = {
    "pchmr_kernels": set(),
    "pchmr_engines": set(),
    "pchmr": {"pchmr_engines", "pchmr_kernels"},
    "pchmr_training": {"pchmr", "pchmr_engines", "pchmr_kernels"},
    "pchmr_export": {"pchmr_training", "pchmr", "pchmr_engines", "pchmr_kernels"},
}
# Packages that a room must never import, at any depth.
NEVER = {
    "pchmr_kernels": {"torch"},
    "pchmr": {"torch", "onnx", "scipy"},
}


def imported_packages(file: Path) -> set[str]:
    """Top-level package names that a source file imports, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    files = sorted((ROOMS[room] / room).rglob("*.py"))
    assert files
    for file in files:
        imported = imported_packages(file)
        forbidden = (imported & ROOMS.keys()) - MAY_IMPORT[room] - {room}
        forbidden |= imported & NEVER.get(room, set())
        assert not forbidden, f"{file.relative_to(ROOT)} imports {sorted(forbidden)}"
