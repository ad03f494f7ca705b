"""What reproduces the README's tables, and their raw results."""
