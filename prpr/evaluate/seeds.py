"""Several models that differ in their seed, measured as one.

Notation: θ_s[g, 0] the value of seed s = 1..S without real group g (0: none left out).

The value is the mean over seeds. Leaving out one seed takes the part of leaving out a group of
fakes: that jackknife's variance is s²/S, with s the standard deviation between seeds, which holds
both what training does and what sampling from each model does. What the real samples do to all
seeds alike comes from the means of θ_s[g, 0]. So the interval is for the mean over further seeds.
"""

from collections.abc import Sequence

import numpy as np

from prpr.metrics import Replicates


def pooled(found: Sequence[Replicates]) -> Replicates:
    """The replicates of the mean over seeds: θ (1 + G, 1 + S); those of one seed stay as they are.

    Args:
      found: of each seed, against the same groups of real samples.
    """
    if len(found) == 1:
        return found[0]
    real = np.stack([np.asarray(one.theta, np.float64)[:, 0] for one in found], axis=1)
    others = (real.sum(axis=1, keepdims=True) - real) / (len(found) - 1)
    theta = np.concatenate([real.mean(axis=1, keepdims=True), others], axis=1)
    notes = tuple(dict.fromkeys(note for one in found for note in one.notes))
    draws = sum(one.draws for one in found)
    # Between seeds nothing is counted twice.
    return found[0]._replace(theta=theta, draws=draws, notes=notes, twice=None)


def spread(found: Sequence[Replicates]) -> float:
    """The standard deviation between seeds, S − 1 in the denominator; 0 for one seed."""
    values = [float(one.theta[0, 0]) for one in found]
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
