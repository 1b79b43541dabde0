"""The live view and its metrics: routing while a model runs."""

from routestats.live import metrics as metrics
from routestats.live._server import DashboardServer as DashboardServer
from routestats.live._show import show as show

__all__ = ["DashboardServer", "metrics", "show"]
