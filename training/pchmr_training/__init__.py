"""Training-side PyTorch: networks, body, calibration module, data."""
