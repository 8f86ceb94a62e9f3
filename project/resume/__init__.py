"""Exact resume: which run and checkpoint to use, what a checkpoint holds, how signals stop it, and changed settings."""
