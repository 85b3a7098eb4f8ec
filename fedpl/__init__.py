"""Personalised federated fine-tuning of foundation models by task-vector aggregation."""

__version__ = "0.1.0"
