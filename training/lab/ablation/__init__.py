"""The ablation: one change a row, measured on held-out pictures, written up as a table."""
