"""Functions that callbacks share: layers, histograms, pictures and fonts."""
