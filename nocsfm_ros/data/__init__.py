"""Data: meshes, renderer, scenes and the sources of frames. The only code that knows a data set's quirks."""
