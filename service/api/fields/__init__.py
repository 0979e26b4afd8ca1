"""What the fields of a request say: numbers, preferences, content codings; each is read in bounded work."""
