"""Server rules on random task vectors whose structure is known: no training, only the rule."""
