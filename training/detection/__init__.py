"""Anchor-free detection on several levels: every point of every level may say a box."""
