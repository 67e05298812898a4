"""Control after training: samplers for any trained generator with an estimate of log p/q.

    sampler = samplers.parse("reject:budget=4")
    drawn = drawing.sample(system, state, labels, key, sampler)       # from prpr.samplers.drawing
    drawn.items, drawn.cost.per_item["generator"], drawn.notes

Notation: P is the data and comes first, q the model's density, r̂ = p/q as the run's own critic
estimates it (`train.log_ratio`), z (N, dim_z) latents, y (N,) classes, K a budget: calls of the
generator for one accepted sample.

    truncation:at=t          |z| <= t, a coordinate (`prpr.sampling`); needs no ratio
    reject:budget=K          accepts with min(c r̂, 1), c such that one of K is accepted
    reject:lam=λ             accepts with min(λ r̂, 1): α(λ) of all
    drs:gamma=g              discriminator rejection sampling
    mh:steps=K               Metropolis-Hastings chains of K proposals
    ddls:steps=T,size=ε      T Langevin steps in the latent

`settings` names and checks them, without JAX; `rejection`, `chains` and `langevin` hold the
formulas; `drawing` is what they have in common. What is drawn is `state.generator`, in evaluation
mode, so a caller that samples an average puts it there (`state.replace(generator=...)`): items are
then independent of each other, and a density's own half of the ratio is that of what is drawn.

A sample has the class that was asked for: a proposal that is not accepted is drawn again for the
same class, so q'(x|y) ∝ q(x|y) a(x, y), and classes keep their shares whatever their acceptance.
All draw without truncation but `truncation`, since r̂ is the ratio to the model without one.
"""

from prpr.samplers.settings import (
    NAMES,
    Cost,
    Ddls,
    Drs,
    Mh,
    Reject,
    Sampler,
    Truncation,
    check_ratio,
    parse,
    several,
)

__all__ = [
    "NAMES",
    "Cost",
    "Ddls",
    "Drs",
    "Mh",
    "Reject",
    "Sampler",
    "Truncation",
    "check_ratio",
    "parse",
    "several",
]
