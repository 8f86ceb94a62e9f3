"""Initial weights, pretrained weights, and loading files without running code in them."""
