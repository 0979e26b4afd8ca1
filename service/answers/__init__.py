"""From one pass to the bytes of one answer."""
