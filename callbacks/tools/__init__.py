"""Functions shared by callbacks: layers, histograms, images and fonts."""
