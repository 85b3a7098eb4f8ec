"""Newcomers of a finished run: an adapter each, without training the others again."""
