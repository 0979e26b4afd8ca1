"""Data as people have it, one layout a module: pictures, and labels that count the names of their own source."""
