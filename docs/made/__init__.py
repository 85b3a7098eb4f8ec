"""What the documentation does not type: regions of its pages that are made from code and from results."""
