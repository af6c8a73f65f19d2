"""What the limiter costs and what it gains, beside its peers, in one run on one machine."""
