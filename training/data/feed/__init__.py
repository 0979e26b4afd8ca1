"""How pictures get to the step in time: kept in memory, read by several threads, made into batches ahead."""
