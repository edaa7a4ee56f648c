"""Networks and runs on disk: whole or absent, versioned, without pickle."""
