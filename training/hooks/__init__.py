"""What a method of not forgetting, balancing or teaching may do to a training step: the one seam that all share."""
