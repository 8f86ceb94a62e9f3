"""Commands beside those of Lightning's Trainer, one a file."""
