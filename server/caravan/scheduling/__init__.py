"""What to compute next and where its keys and values live. No torch."""
