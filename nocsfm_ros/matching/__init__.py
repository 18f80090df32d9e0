"""Dense features, point matches, and finding the object in the whole picture."""
