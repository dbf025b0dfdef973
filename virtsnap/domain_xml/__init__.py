"""Domain XML: templates found and filled, live XML read."""
