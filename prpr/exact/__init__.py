"""True frontiers in the plane, by integration, where densities or generators are known.

Notation
  P, Q        the data (always first) and the model; p, q their densities, r = p/q
  x, z        (N, 2) points of the plane, and of a latent plane in which z ~ N(0, I)
  α(λ)        ∫ min(λp, q) = λ P(r < 1/λ) + Q(r >= 1/λ);   β(λ) = α(λ)/λ
  P_c, Q_c    masses of a cell c of a regular grid over a box; P_out, Q_out those outside of it
  M, L        number of models that are looked at together, of λ

Four ways to α(λ), by what is known of the model:

  `curve`               log q: midpoint sums over cells, halved until they no longer move
  `flow_curve`          log q and x = G(z), z in the plane: sums over z, where q has no folds
  `generator_curve`     x = G(z), z in the plane: the latent normal is pushed through G into cells
  `sample_curve`        samples only: their shares of the cells

The first two converge to α. The others compare the masses of cells, Σ_c min(λP_c, Q_c), and merging
points into cells can only bring P and Q closer, so this is >= α(λ), and falls to it as
the cells shrink (if Q has a density; a generator that has collapsed onto a line has none, and
its α is 0 in truth).

Two pairs of numbers are the true precision and recall of a model (`Exact`):

  ends        α(λ_hi), β(λ_lo): the ends of the frontier that one looks at, λ_hi = 20 and
              λ_lo = 1/20 by default. They fall by a little where q is a little off p.
  support     Q(A_p), P(A_q), where A_p is the smallest region that holds the share 99 % of P,

                  A_p = {x: p(x) >= c},  c such that P(A_p) = share;     A_q likewise

              (the highest-density region; of points with p = c as many as it takes, in
              proportion). P = Q gives the share, not 1; how p and q vary inside does not matter.

The area under a curve is `prpr.frontier.area_under`; that under points is `hypervolume` here.

All sums are in float64 on the host, whatever the dtype of log p and log q; in float32 these leave
an error of a few 1e-6. Functions are called with tiles of one shape. `curve` keeps one tile at a
time, so its memory does not depend on the step; the others keep the masses of all cells.
"""

from prpr.exact.area import hypervolume
from prpr.exact.cells import generator_curve, sample_curve
from prpr.exact.densities import curve
from prpr.exact.latent import flow_curve
from prpr.exact.sums import ENDS, SHARE, Box, Exact, Pair

__all__ = [
    "ENDS",
    "SHARE",
    "Box",
    "Exact",
    "Pair",
    "curve",
    "flow_curve",
    "generator_curve",
    "hypervolume",
    "sample_curve",
]
