"""The live view and its metrics: they follow a run's feed while it is captured, else its files."""

from routestats.live import metrics as metrics
from routestats.live._server import DashboardServer as DashboardServer
from routestats.live._show import show as show

__all__ = ["DashboardServer", "metrics", "show"]
