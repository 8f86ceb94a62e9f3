"""Commands other than those of Lightning's Trainer, one per module."""
