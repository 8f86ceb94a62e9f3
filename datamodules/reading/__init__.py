"""Read image files as uint8 RGB pixels."""
