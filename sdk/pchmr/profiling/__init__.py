"""Where a frame's time goes, from the camera to the mesh: what `pchmr profile` measures."""
