"""Data: the three mini sets on disk, read without torch."""
