"""Aggregation throughput: pairwise similarity and personalised mixing, ours and others'."""
