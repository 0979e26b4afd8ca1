"""Ways of not forgetting, one a file."""
