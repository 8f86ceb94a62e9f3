"""What your own callback inherits from: drawing in a background thread, predictions, steps, logging."""
