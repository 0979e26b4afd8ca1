"""Labels by networks of any make: described in a few lines, asked about a folder of pictures, fused, written."""
