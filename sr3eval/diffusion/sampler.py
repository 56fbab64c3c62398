"""The former name of `solvers`, until the last import of it has changed."""

from sr3eval.diffusion.solvers import NoisePerImage, refine

__all__ = ["NoisePerImage", "refine"]
