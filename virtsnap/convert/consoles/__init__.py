"""Character devices: backends, and the ports and monitors that use them."""
