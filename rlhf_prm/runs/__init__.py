"""Code shared by the training recipes: arguments, sources of the parts, the run itself, and its folder."""
