"""Predictions and exports of trained runs."""
