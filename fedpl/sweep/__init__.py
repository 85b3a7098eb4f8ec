"""Sweeps over settings: files for W&B's server and agents, also run here without either."""
