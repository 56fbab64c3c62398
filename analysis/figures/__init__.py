"""One function a figure, DataFrame -> matplotlib Figure, for a column of a paper (SINGLE) or for both (DOUBLE)."""

from analysis.figures.correlations import correlations
from analysis.figures.curves import psychometric_curves
from analysis.figures.effects import odds_ratios, order_effects
from analysis.figures.pictures import per_image_extremes
from analysis.figures.preferences import preference_scores, win_matrix
from analysis.figures.quality import response_times, timing_quality
from analysis.figures.rates import by_viewing_time, fool_rates
from analysis.figures.scores import fid_against_steps, metric_against_people
from analysis.figures.style import DOUBLE, SINGLE, keep_colours, save

__all__ = [
    "DOUBLE",
    "SINGLE",
    "by_viewing_time",
    "correlations",
    "fid_against_steps",
    "fool_rates",
    "keep_colours",
    "metric_against_people",
    "odds_ratios",
    "order_effects",
    "per_image_extremes",
    "preference_scores",
    "psychometric_curves",
    "response_times",
    "save",
    "timing_quality",
    "win_matrix",
]
