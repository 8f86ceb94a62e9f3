"""Sweeps: train with several settings, each as an ordinary run, in any number of processes. Imports no torch."""
