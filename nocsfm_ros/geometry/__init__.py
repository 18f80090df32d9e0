"""Points, cameras, crops, rotations: pure functions without state."""
