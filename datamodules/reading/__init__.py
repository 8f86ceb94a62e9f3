"""Image files to uint8 RGB pixels."""
