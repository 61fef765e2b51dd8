"""Scorers: how far the texts of a request support an answer."""
