"""Slow float64 brute force in NumPy: what the tests of `prpr` compare with.

Written from the definitions, without any code of prpr. Notation as in `prpr.divergences`.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np

# f(u) for u > 0, as one writes it on paper.
F: dict[str, Callable] = {
    "pr": lambda u, lam: np.maximum(lam * u, 1) - max(lam, 1),
    "smoothed_pr": lambda u, lam: (1 + (lam * u) ** 4) ** 0.25 - (1 + lam**4) ** 0.25,
    "kl": lambda u, _: u * np.log(u),
    "reverse_kl": lambda u, _: -np.log(u),
    "jensen_shannon": lambda u, _: 0.5 * (u * np.log(u) - (u + 1) * np.log((u + 1) / 2)),
    "gan": lambda u, _: u * np.log(u) - (u + 1) * np.log(u + 1) + 2 * np.log(2),
    "jeffreys": lambda u, _: (u - 1) * np.log(u),
    "pearson": lambda u, _: (u - 1) ** 2,
    "neyman": lambda u, _: (1 - u) ** 2 / u,
    "squared_hellinger": lambda u, _: (np.sqrt(u) - 1) ** 2,
    "le_cam": lambda u, _: (u - 1) ** 2 / (u + 1),
    "total_variation": lambda u, _: 0.5 * np.abs(u - 1),
}

# The mixture weight w(μ), from the table in the paper's terms; atoms below.
WEIGHT: dict[str, Callable] = {
    "pr": lambda mu, _: 0 * mu,
    # f'' = (p-1) λ^p u^(p-2) (1 + s)^(τ-2), s = (λu)^p, at u = 1/μ, over μ³; p = 4, τ = 1/4
    "smoothed_pr": lambda mu, lam: 3 * lam**4 * mu**-2 * (1 + (lam / mu) ** 4) ** -1.75 / mu**3,
    "kl": lambda mu, _: mu**-2,
    "reverse_kl": lambda mu, _: 1 / mu,
    "jensen_shannon": lambda mu, _: 1 / (2 * mu * (1 + mu)),
    "gan": lambda mu, _: 1 / (mu * (1 + mu)),
    "jeffreys": lambda mu, _: (1 + mu) / mu**2,
    "pearson": lambda mu, _: 2 * mu**-3,
    "neyman": lambda mu, _: 2 + 0 * mu,
    "squared_hellinger": lambda mu, _: 0.5 * mu**-1.5,
    "le_cam": lambda mu, _: 8 / (1 + mu) ** 3,
    "total_variation": lambda mu, _: 0 * mu,
}

# {name: [(μ, mass)]} as functions of λ.
ATOMS: dict[str, Callable] = {
    "pr": lambda lam: [(lam, 1.0)],
    "total_variation": lambda _: [(1.0, 1.0)],
}


def discrete_pair(seed: int, size: int = 116) -> tuple[np.ndarray, np.ndarray]:
    """Two random positive distributions on `size` points."""
    p, q = np.random.default_rng(seed).dirichlet(np.ones(size), 2) + 1e-3
    return p / p.sum(), q / q.sum()


def f_divergence(p: np.ndarray, q: np.ndarray, f: Callable) -> float:
    """E_q[f(p/q)]."""
    return float(np.sum(q * f(p / q)))


def pr_divergence(p: np.ndarray, q: np.ndarray, mu: float) -> float:
    """D_μ(P‖Q) = min(1, μ) - Σ min(μp, q)."""
    return float(min(1.0, mu) - np.sum(np.minimum(mu * p, q)))


def mixture(p: np.ndarray, q: np.ndarray, weight: Callable, atoms=()) -> float:
    """∫ w(μ) D_μ dμ + Σ mass·D_location; D_μ is 0 for μ outside [min q/p, max q/p].

    Gauss-Legendre with 116 nodes in log μ on each interval between two kinks of D_μ.
    """
    nodes, node_weights = np.polynomial.legendre.leggauss(116)
    kinks = np.unique(np.log(np.append(q / p, 1.0)))
    total = sum(mass * pr_divergence(p, q, mu) for mu, mass in atoms)
    for a, b in pairwise(kinks):
        mu = np.exp(0.5 * (a + b) + 0.5 * (b - a) * nodes)
        d = np.minimum(1.0, mu) - np.minimum(mu[:, None] * p, q).sum(axis=1)
        total += 0.5 * (b - a) * np.sum(node_weights * weight(mu) * mu * d)
    return float(total)


def conjugate(t: np.ndarray, f: Callable, kinks=()) -> np.ndarray:
    """sup over a grid of u, with the kinks of f, of t·u - f(u): a bound from below."""
    u = np.concatenate([[1e-300], np.exp(np.linspace(-20, 10, 100_001)), kinks])
    with np.errstate(under="ignore"):
        values = f(u)
    return np.array([np.max(one * u - values) for one in t])


def derivative(f: Callable, u: np.ndarray, order: int = 1) -> np.ndarray:
    """Central differences of fourth order, of step 1e-3·u."""
    d = 1e-3 * u
    if order == 1:
        return (8 * (f(u + d) - f(u - d)) - (f(u + 2 * d) - f(u - 2 * d))) / (12 * d)
    near, far = f(u + d) + f(u - d), f(u + 2 * d) + f(u - 2 * d)
    return (16 * near - far - 30 * f(u)) / (12 * d**2)
