"""Where an f-divergence stands on the frontier of two densities: its centre.

Notation: p_i, q_i (N,) the masses of P and Q in the cells of a grid, r = p/q; w the mixture
weight, D_f = ∫ from m to M of w(λ) D_λ dλ with m = inf q/p and M = sup q/p (Verine et al.,
arXiv:2305.18910; `prpr.divergences`).

A weight alone has no centre: KL's λ⁻² is not integrable at 0 and reverse KL's λ⁻¹ at neither end.
Times D_λ(P‖Q) it has one, since it is what D_f(P‖Q) < ∞ is made of. So the centre of f on P and Q
is the λ_f that halves it,

    S(λ_f) = ½,    S(λ) = ∫ from m to λ of w(μ) D_μ(P‖Q) dμ / D_f(P‖Q)

S is the share of the divergence, as it stands at P and Q, that lies with trade-offs below λ.
"""

from typing import NamedTuple

import numpy as np

from prpr import divergences
from prpr.numerics import float64

NODES = 8001  # of log λ between m and M


class Centre(NamedTuple):
    """Of one divergence on one pair.

    Attributes:
      divergence: D_f(P‖Q) = Σ q f(r).
      mixture: the same, by ∫ w D_λ dλ.
      low, centre, high: the λ at which S is ¼, ½, ¾.
    """

    divergence: float
    mixture: float
    low: float
    centre: float
    high: float


def pr_divergence(p: np.ndarray, q: np.ndarray, lam: np.ndarray) -> np.ndarray:
    """D_λ of masses (N,), at each λ (L,): Σ (λp − q)₊ for λ ≤ 1, Σ (q − λp)₊ above; (L,).

    Either is a difference of two sums over only those cells that count: where few do, it keeps
    digits that min(1, λ) − α(λ) loses. Masses are taken to have equal sums.
    """
    log_r = np.log(p) - np.log(q)
    order = np.argsort(log_r)
    p, q, log_r = p[order], q[order], log_r[order]
    # Cells below `at` have r < 1/λ.
    at = np.searchsorted(log_r, -np.log(lam), side="left")
    p_below, q_below = (np.append(0.0, np.cumsum(x)) for x in (p, q))
    p_above, q_above = (np.append(np.cumsum(x[::-1])[::-1], 0.0) for x in (p, q))
    high = q_below[at] - lam * p_below[at]
    low = lam * p_above[at] - q_above[at]
    return np.maximum(np.where(lam > 1, high, low), 0.0)


def centre(name: str, p: np.ndarray, q: np.ndarray) -> Centre:
    """The centre of the divergence of that name.

    Args:
      name: of `prpr.divergences`, one without atoms or λ.
      p, q: (N,) masses, positive, of sum 1.
    """
    f = divergences.get(name)
    log_r = np.log(p) - np.log(q)
    log_lam = np.linspace(-log_r.max(), -log_r.min(), NODES)
    lam = np.exp(log_lam)
    with float64():
        weight = np.asarray(f.weight(lam, None))
        total = float(np.sum(q * np.asarray(f.f_log(log_r, None))))
    terms = lam * weight * pr_divergence(p, q, lam)
    pieces = 0.5 * (terms[1:] + terms[:-1]) * np.diff(log_lam)
    share = np.append(0.0, np.cumsum(pieces))
    at = np.interp(np.array([0.25, 0.5, 0.75]) * share[-1], share, log_lam)
    return Centre(total, float(share[-1]), *(float(x) for x in np.exp(at)))
