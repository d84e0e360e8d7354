"""Adapters: what fits a cache to the frameworks and databases around it."""
