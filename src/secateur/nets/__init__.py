"""How networks are built again, and the reference networks."""
