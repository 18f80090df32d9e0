"""Render and compare: how a supposed pose must move, and how right it is."""
