"""What is expected of every metric of `prpr.metrics`, and what was published of some.

A NEW METRIC is entered in EXPECTED, under the name that its family registers; until then
tests/test_metric_sanity.py fails. Its fields say which rules of the synthetic checks apply and
what the quick checks of the tests ask.

PUBLISHED holds verdicts of arXiv 2505.22450 as its repository shows them, in the stored output of
plotting/print_pass_fail_tables.ipynb (branch main, commit 09d0db3), whose seeds could not be
repeated. Whether the paper prints the same was not verified: its text could not be read here.
"""

from typing import NamedTuple

# What makes a metric of each kind worse: half of the fakes far from all data, or one mode of four.
WORSE = {
    "fidelity": ("noisy",),
    "diversity": ("dropped",),
    "overall": ("noisy", "dropped"),
    "distance": ("noisy", "dropped"),
}


class Expected(NamedTuple):
    """What a metric must do.

    Attributes:
      kind: of `sanity.rules.KINDS`, or "other": the synthetic checks do not apply; say `why`.
      identical: least and greatest value of a set against itself.
      collapsed: the same where all fakes are copies of one real sample.
      swapped: the metric that gives the same value with the sets exchanged; "" where none does.
      example: what to measure where the registered name stands for many ("alpha_<λ>").
      slack: how far the two values of `swapped` may be apart, where folds or clusters are drawn.
      better: 1 where more is better, -1 where less is.
      worse: sets of tests/test_metric_sanity.py that must score worse; () for those of its kind.
      same: the entry that gives the same number under another name: the synthetic checks take
        that one alone.
      why: why no synthetic check applies.
      slow: a second or more a pair: the benchmark leaves it out unless it is asked for.
    """

    kind: str
    identical: tuple[float, float]
    collapsed: tuple[float, float]
    swapped: str = ""
    example: str = ""
    slack: float = 0.0
    better: int = 1
    worse: tuple[str, ...] = ()
    same: str = ""
    why: str = ""
    slow: bool = False


INF = float("inf")

EXPECTED: dict[str, Expected] = {
    "precision": Expected("fidelity", (1, 1), (1, 1), "recall"),
    "recall": Expected("diversity", (1, 1), (0, 0.05), "precision"),
    "density": Expected("fidelity", (1.2, 1.2), (0.2, 5)),
    "coverage": Expected("diversity", (1, 1), (0, 0.1), "precision_complement"),
    "fid": Expected("distance", (0, 0), (10, INF), "fid", better=-1),
    "fid_infinity": Expected("distance", (-INF, 0), (10, INF), better=-1),
    "fid_infinity_both": Expected("distance", (-INF, 0), (10, INF), better=-1),
    "fd_dinov2": Expected("distance", (0, 0), (10, INF), "fd_dinov2", better=-1, same="fid"),
    "fd": Expected("distance", (0, 0), (10, INF), "fd", better=-1, same="fid"),
    "kid": Expected("distance", (-INF, 0), (1, INF), "kid", better=-1),
    "is": Expected(
        "other",
        (3, 4),
        (1, 1),
        why="it needs class probabilities, which points have none of",
        worse=("dropped",),
    ),
    "vendi": Expected(
        "other", (2, 6), (1, 1), why="it knows nothing of the real samples", worse=("dropped",)
    ),
    # The frontier compares distributions, not supports: q at one of N real samples has λ/N of it.
    "alpha_<λ>": Expected(
        "fidelity", (0.95, 1), (0, 0.3), "beta_0.1", "alpha_10", slack=0.15, slow=True
    ),
    "beta_<λ>": Expected(
        "diversity", (0.95, 1), (0, 0.05), "alpha_10", "beta_0.1", slack=0.15, slow=True
    ),
    "f_<b>": Expected("overall", (0.95, 1), (0, 0.1), "f_1", "f_1", slack=0.1, slow=True),
    "alpha_knn_<λ>": Expected(
        "fidelity", (0.95, 1), (0, 0.3), "beta_knn_0.1", "alpha_knn_10", slack=0.1
    ),
    "beta_knn_<λ>": Expected(
        "diversity", (0.95, 1), (0, 0.05), "alpha_knn_10", "beta_knn_0.1", slack=0.1
    ),
    "f_knn_<b>": Expected("overall", (0.95, 1), (0, 0.1), "f_knn_1", "f_knn_1", slack=0.1),
    "precision_sajjadi": Expected(
        "fidelity", (1, 1), (0, 0.6), "recall_sajjadi", slack=0.05, slow=True
    ),
    "recall_sajjadi": Expected(
        "diversity", (1, 1), (0, 0.1), "precision_sajjadi", slack=0.05, slow=True
    ),
    "p_precision": Expected("fidelity", (1, 1), (1, 1), "p_recall"),
    "p_recall": Expected("diversity", (1, 1), (0, 0.05), "p_precision"),
    "clipped_density": Expected("fidelity", (1, 1), (0.5, 1)),
    "clipped_coverage": Expected("diversity", (1, 1), (0, 0.05)),
    "topp": Expected("fidelity", (1, 1), (1, 1), "topr"),
    "topr": Expected("diversity", (1, 1), (0, 0.05), "topp"),
    "precision_symmetric": Expected("fidelity", (1, 1), (1, 1), "recall_symmetric"),
    "recall_symmetric": Expected("diversity", (1, 1), (0, 0.05), "precision_symmetric"),
    "precision_complement": Expected("fidelity", (1, 1), (1, 1), "coverage"),
    "authenticity": Expected(
        "other",
        (0, 0),
        (0, 0),
        why="it asks for copies, of which the checks have none",
        worse=("copies",),
    ),
}


# T, F, or L and H for a pass as "low" or "high": for each check in the order of CHECKS its
# desiderata in the order of Check.desiderata.
PUBLISHED: dict[str, str] = {
    "precision": "TF FF TF TF TF TT FF FF FT TT TF FF TF FF FF",
    "density": "TT TF TF FT TT TT FF FF FT TT TT TT TT FF FF",
    "precision_symmetric": "TF FF FF FF FF FF TT FF FF TT TF TT TT FF FF",
    "p_precision": "TF TF TF TF TF TF FF FF FT TT TF TT TF FF FF",
    "recall": "TF FF HF FF TF TT FF FF FF FT FF TF TT FF FF",
    "coverage": "TT TT FF TT TT FF FF FF FF FF FT TT TT FF FF",
    "recall_symmetric": "TF TF FF FF TF FF TT FF FF FF FF TT TT FF FF",
    "p_recall": "TF TF HF TF TF TF FF FF FF FT FF TT TF FF FF",
}
