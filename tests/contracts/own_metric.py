"""Somebody's own metric, of the kind `python`."""


def build(*, power: float = 1.0):
    """Mean distance of the pixels from HR."""
    return lambda batch: ((batch.sr - batch.hr).abs() ** power).flatten(1).mean(dim=1)
