"""Several methods over several seeds on the same clients."""
