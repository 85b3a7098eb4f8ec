"""Rules that were chosen elsewhere, once on populations that they have not seen."""
