"""Devices that are an element of their own and little more."""
