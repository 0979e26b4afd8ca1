"""Training: pictures with their labels in, one checkpoint out, a stage for each task."""
