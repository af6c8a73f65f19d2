"""`python -m adaptive_rate_limiter.cli`."""

import sys

from adaptive_rate_limiter.cli import main

if __name__ == "__main__":
    sys.exit(main())
