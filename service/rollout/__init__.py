"""A model file's way into service: verified, swapped in, shadowed."""
