"""The calibration arithmetic and the skeletons it works on."""
