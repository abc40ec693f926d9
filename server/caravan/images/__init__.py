"""Pictures: fetched, decoded and cut into tiles. No torch."""
