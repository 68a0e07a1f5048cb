"""DatUS: pictures are cut into segments without training, and the segments of all pictures are grouped into classes."""
