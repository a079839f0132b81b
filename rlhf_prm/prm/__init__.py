"""Process reward models: how each family is read, and how they are scored fast beside a policy."""
