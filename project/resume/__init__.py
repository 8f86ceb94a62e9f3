"""Exact resume: what a checkpoint holds besides Lightning's state, signals, and changed settings."""
