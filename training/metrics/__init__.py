"""Metrics: exact over a whole split, at the original resolution, in numpy alone."""
