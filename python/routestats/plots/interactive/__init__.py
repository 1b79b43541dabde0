"""Figures to explore, in a notebook or a web page; one module per figure.

Every function takes computed results and returns a Bokeh layout, whose sliders and menus move data
in the browser: no kernel and no server is needed. `load` puts BokehJS itself into a page, once, and
`show` a layout, so that a saved notebook works without a network::

    rs.plots.interactive.load()
    rs.plots.interactive.show(rs.plots.interactive.affinity(counts))

`bokeh.io.show`, `bokeh.embed` and Panel take the layouts as well. Bokeh comes with the extra
``routestats[notebook]``, and is imported when the first figure is made.
"""

from routestats.plots.interactive._affinity import affinity as affinity
from routestats.plots.interactive._domain_difference import domain_difference as domain_difference
from routestats.plots.interactive._embed import Html as Html
from routestats.plots.interactive._embed import load as load
from routestats.plots.interactive._embed import show as show
from routestats.plots.interactive._expert_load import expert_load as expert_load
from routestats.plots.interactive._layer_pairs import layer_pairs as layer_pairs
from routestats.plots.interactive._path_flow import path_flow as path_flow
from routestats.plots.interactive._prediction import prediction as prediction
from routestats.plots.interactive._speculation import speculation as speculation
from routestats.plots.interactive._table import table as table
from routestats.plots.interactive._timing import timing as timing

__all__ = [
    "Html",
    "affinity",
    "domain_difference",
    "expert_load",
    "layer_pairs",
    "load",
    "path_flow",
    "prediction",
    "show",
    "speculation",
    "table",
    "timing",
]
