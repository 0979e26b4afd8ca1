"""Examines the data on disk for what ruins a training run; runs without torch."""
