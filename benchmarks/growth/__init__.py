"""What a round costs beside training, as the number of clients grows."""
