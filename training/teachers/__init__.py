"""Larger networks whose outputs are learned beside the labels, asked once about the training pictures."""
