"""A float artifact -> the same in fewer bits: its weights, and perhaps its activations. Each format by its own tool."""
