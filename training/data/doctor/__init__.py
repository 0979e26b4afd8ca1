"""Finds on disk what would ruin a training run, and refuses it; runs without torch."""
