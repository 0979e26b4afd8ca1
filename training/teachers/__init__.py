"""Larger networks whose outputs are learned beside the labels: those of detection are asked in every step."""
