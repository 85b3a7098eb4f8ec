"""Recorded task vectors, aggregated again under other server settings, without training."""
