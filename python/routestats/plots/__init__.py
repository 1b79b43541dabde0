"""Figures of computed results; one module per figure.

Every function returns a `matplotlib.figure.Figure` that belongs to no window and no global state:
``figure.savefig("load.png")``. Matplotlib comes with the extra ``routestats[plots]``, and is
imported when the first figure is drawn.
"""

from routestats.plots import interactive as interactive
from routestats.plots._affinity_grid import affinity_grid as affinity_grid
from routestats.plots._confidence import confidence as confidence
from routestats.plots._domain_divergence import domain_divergence as domain_divergence
from routestats.plots._expert_load import expert_load as expert_load
from routestats.plots._hop_accuracy import hop_accuracy as hop_accuracy
from routestats.plots._load_by_domain import load_by_domain as load_by_domain
from routestats.plots._lookahead import lookahead as lookahead
from routestats.plots._path_coverage import path_coverage as path_coverage
from routestats.plots._prediction import prediction as prediction
from routestats.plots._speculation import speculation as speculation
from routestats.plots._timing import timing as timing

__all__ = [
    "affinity_grid",
    "confidence",
    "domain_divergence",
    "expert_load",
    "hop_accuracy",
    "interactive",
    "load_by_domain",
    "lookahead",
    "path_coverage",
    "prediction",
    "speculation",
    "timing",
]
