"""What large tables cost before training."""
