"""Graphs as text: how they print, their fingerprint, and JSON without pickle."""
