"""Body models in SMPL's format: load one, pose it, regress joints from the posed mesh.

model = BodyModel(load_body("SMPL_NEUTRAL.pkl"))
vertices = model.pose(rotmats, betas)
joints = model.regress("smpl24", vertices)
"""

from .body_file import Body, body_from_arrays, load_body
from .body_model import BodyModel

__all__ = ["Body", "BodyModel", "body_from_arrays", "load_body"]
