"""What a limiter shows of itself: in a notebook, in a terminal, as a plot, as a progress bar."""
