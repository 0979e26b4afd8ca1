"""The report of a run: one HTML page, drawn from the run's folder alone, with the data for its pictures."""
