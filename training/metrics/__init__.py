"""How well a task is learned: figures exact over a whole split, at the original resolution, of what would be served."""
