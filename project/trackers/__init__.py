"""Trackers, such as Weights & Biases, MLflow and Trackio: loggers in addition to TensorBoard and metrics.csv."""
