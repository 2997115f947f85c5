"""What an exported engine is on disk, and how one runs."""
