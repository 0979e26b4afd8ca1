"""What people type besides serving."""
