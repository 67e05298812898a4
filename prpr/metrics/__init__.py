"""Metrics: features -> statistics -> number with interval. Host numpy; no metric knows the model.

real, fake = statistics(real_features), statistics(fake_features)
measure(("precision", "recall", "fid"), real, fake).metrics["precision"].low
"""

from prpr.metrics.family import Family, Options
from prpr.metrics.intervals import Comparison, Estimate, Replicates
from prpr.metrics.prdc import METRICS, Counts, check_names, manifold_radii, prdc_with_intervals
from prpr.metrics.registry import Compared, Measured, compare, known, measure, replicates
from prpr.metrics.statistics import Statistics, load, moments, save, statistics

__all__ = [
    "METRICS",
    "Compared",
    "Comparison",
    "Counts",
    "Estimate",
    "Family",
    "Measured",
    "Options",
    "Replicates",
    "Statistics",
    "check_names",
    "compare",
    "known",
    "load",
    "manifold_radii",
    "measure",
    "moments",
    "prdc_with_intervals",
    "replicates",
    "save",
    "statistics",
]
