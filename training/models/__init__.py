"""The network, read top to bottom: backbone, neck, head, and the three tasks it answers."""
