"""Initialise weights, load pretrained weights, and read files without running code in them."""
