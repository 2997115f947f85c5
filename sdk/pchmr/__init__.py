"""From camera frame to pose-calibrated 3D body mesh."""
