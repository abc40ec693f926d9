"""What the model can do. A skill is a function from (random, split) to a dialogue."""
