"""Results in the formats of other programs: meshes as GLB, motion as BVH and SMPL parameters."""
