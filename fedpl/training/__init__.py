"""The clients' side: model, adapter, local training. Never imports JAX."""
