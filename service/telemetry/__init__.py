"""What happened, in milliseconds, counts, lines and spans; words and numbers only."""
