"""How fast clients are fine-tuned: together, one by one, and by others."""
