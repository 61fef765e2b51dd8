"""Quality of each target on the kind of query that this one is: means of groups, shrunk. After Zhang et al. ("The
Avengers", 2025, arXiv:2505.19797), who group queries by k-means and keep each model's score per group.

    m_ct    = (summed quality of target t in group c + pull * mean of t) / (answers scored there + pull)
    quality = mean over the groupings of  sum over groups of  p(c | x) m_ct

Differs from the paper: several groupings are averaged and membership is soft (`kmeans.py`), where the paper takes the
nearest group of one grouping; groups are pulled towards the target's mean; forecasts are scores, not
votes, so that cost is weighed later; and the pull, the temperature and the groupings are chosen on held-out training
queries. Unscored answers are left out.

    quality_sd^2 = mean over the groupings of  sum over groups of  p(c | x)^2 * (standard error of m_ct)^2

The groupings hold the same answers, so averaging them makes nothing surer; the pull is no answer either.

Shapes: Q queries, T targets, D features, C groups of all groupings. A fit of 5,600 x 9 at D = 150 takes about 3 s, a
forecast 20 µs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from fairlead.errors import TableError
from fairlead.predictors import kmeans
from fairlead.predictors.base import Floats, Predictor
from fairlead.predictors.calibration import Method
from fairlead.predictors.features import Features
from fairlead.predictors.statistics import means, pulled, standard_error, unit

if TYPE_CHECKING:
    from fairlead.table import OutcomeTable

PULLS = (3.0, 0.5, 10.0, 30.0, 100.0)
"""Pulls that are tried; the first is taken where there is too little to try on."""


class Clusters(Predictor):
    """Forecasts from the means of groups of alike queries.

    Args:
        features: what is read of a query; None: `Features()`.
        ks: sizes of the groupings that may be averaged.
        pull: weight of the target's own mean in each group, in answers; None: chosen at the fit.
        seed: of the groupings.
        calibration: map of the forecasts, learned from held-out queries at the fit.
    """

    centres_: NDArray[np.float32]
    """Of all groupings together, (C, D)."""
    sizes_: NDArray[np.int64]
    """Groups of each grouping."""
    temperature_: float
    table_: Floats
    """Quality of each target in each group, (C, T)."""
    variance_: Floats
    """Squared standard error of the same, (C, T)."""
    pull_: float

    def __init__(
        self,
        *,
        features: Features | None = None,
        ks: Annotated[tuple[Annotated[int, Meta(ge=1)], ...], Meta(min_length=1)] = kmeans.KS,
        pull: Annotated[float, Meta(ge=0.0)] | None = None,
        seed: Annotated[int, Meta(ge=0)] = 0,
        calibration: Method = "none",
    ) -> None:
        self.features = features or Features()
        self.ks = ks
        self.pull = pull
        self.seed = seed
        self.calibration = calibration

    def _fit(self, x_QD: Floats, quality_QT: Floats, table: OutcomeTable) -> None:
        if np.isnan(quality_QT).all():
            raise TableError("the table has no scored answers to learn from")
        pulls = PULLS if self.pull is None else (self.pull,)

        def tables(count_CT: Floats, total_CT: Floats, mean_T: Floats) -> Floats:
            return np.stack([pulled(total_CT, count_CT, mean_T, pull) for pull in pulls])

        x_QD = unit(x_QD)
        chosen = kmeans.choose(x_QD, quality_QT, table.groups, ks=self.ks, seed=self.seed, tables=tables)
        self.pull_, self.temperature_ = pulls[chosen.table], chosen.temperature
        mean_T = means(quality_QT)
        centres, rows, variances = [], [], []
        for k in chosen.ks:
            centre_KD, group_Q = kmeans.centres(x_QD, k, self.seed)
            count_KT, total_KT = kmeans.totals(group_Q, k, quality_QT)
            centres.append(centre_KD)
            rows.append(pulled(total_KT, count_KT, mean_T, self.pull_))
            variances.append(standard_error(rows[-1], count_KT) ** 2)
        self.centres_ = np.concatenate(centres).astype(np.float32)
        self.sizes_ = np.asarray(chosen.ks, dtype=np.int64)
        self.table_, self.variance_ = np.concatenate(rows), np.concatenate(variances)

    def _quality(self, x_D: Floats) -> tuple[Floats, Floats]:
        quality_T, variance_T = kmeans.forecast(
            x_D, self.centres_, self.sizes_, self.temperature_, self.table_, self.variance_
        )
        return quality_T, np.sqrt(variance_T)
