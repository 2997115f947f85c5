"""Live input: capture, inference, display and recording, each in a thread of its own."""
