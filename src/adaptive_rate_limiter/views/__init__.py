"""What a limiter shows of itself: in a notebook, in a terminal, as a plot."""

from adaptive_rate_limiter.views.history import History, Mark, Point
from adaptive_rate_limiter.views.shown import Shown
from adaptive_rate_limiter.views.view import View
from adaptive_rate_limiter.views.watch import Watch

__all__ = ["History", "Mark", "Point", "Shown", "View", "Watch"]
