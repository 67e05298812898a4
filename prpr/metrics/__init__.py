"""Metrics: features -> numbers with intervals. Host numpy only; no metric knows the model."""

from prpr.metrics.intervals import Estimate
from prpr.metrics.prdc import (
    METRICS,
    Counts,
    check_names,
    manifold_radii,
    prdc_with_intervals,
)

__all__ = [
    "METRICS",
    "Counts",
    "Estimate",
    "check_names",
    "manifold_radii",
    "prdc_with_intervals",
]
