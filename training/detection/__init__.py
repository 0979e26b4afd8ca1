"""What detection logits mean: which point has to find which box, the losses, and the way back to boxes."""
