"""Untrusted bytes become upright RGB and a square, or a refusal, before a decoder is trusted."""
