"""Figures of computed results; one module per figure.

Every function takes what `routestats.stats` or `routestats.count_paths` computed, draws it and
computes nothing. Without `ax` it returns a `matplotlib.figure.Figure`, 1,000 pixels wide, that
belongs to no window and no global state: ``figure.savefig("load.png")``. With ``ax=`` it draws the
main part on those Axes and returns them, so that figures can be put together
(``matplotlib.pyplot.subplots``). `affinity_grid`, `hop_accuracy` and `load_by_domain` are made of
several panels and take no `ax`; `affinity`, `layer_matrix` and `load_difference` draw one.

Matplotlib comes with the extra ``routestats[plots]``, and is imported when the first figure is
drawn.
"""

from routestats.plots import interactive as interactive
from routestats.plots._affinity import affinity as affinity
from routestats.plots._affinity_grid import affinity_grid as affinity_grid
from routestats.plots._confidence import confidence as confidence
from routestats.plots._domain_divergence import domain_divergence as domain_divergence
from routestats.plots._expert_load import expert_load as expert_load
from routestats.plots._hop_accuracy import hop_accuracy as hop_accuracy
from routestats.plots._layer_matrix import layer_matrix as layer_matrix
from routestats.plots._load_by_domain import load_by_domain as load_by_domain
from routestats.plots._load_difference import load_difference as load_difference
from routestats.plots._lookahead import lookahead as lookahead
from routestats.plots._path_coverage import path_coverage as path_coverage
from routestats.plots._path_flow import path_flow as path_flow
from routestats.plots._path_frequencies import path_frequencies as path_frequencies
from routestats.plots._prediction import prediction as prediction
from routestats.plots._repetition import repetition as repetition
from routestats.plots._segment_routing import segment_routing as segment_routing
from routestats.plots._speculation import speculation as speculation
from routestats.plots._timing import timing as timing
from routestats.plots._transfer import transfer as transfer

__all__ = [
    "affinity",
    "affinity_grid",
    "confidence",
    "domain_divergence",
    "expert_load",
    "hop_accuracy",
    "interactive",
    "layer_matrix",
    "load_by_domain",
    "load_difference",
    "lookahead",
    "path_coverage",
    "path_flow",
    "path_frequencies",
    "prediction",
    "repetition",
    "segment_routing",
    "speculation",
    "timing",
    "transfer",
]
