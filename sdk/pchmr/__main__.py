"""The command `pchmr`, and `python -m pchmr`: Ctrl-C ends it quietly, also while it is imported."""

from __future__ import annotations


def main() -> None:
    """Entry point. Raises: SystemExit, 130 after an interrupt."""
    try:
        from .cli.main import main as command

        command()
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
