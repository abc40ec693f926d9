"""How the bundled demo model is made: its data, its tokenizer, its training. Not in the wheel.

lists       closed lists: capitals, colours, words
pictures    scenes of shapes, and digits
dialogue    a conversation to learn from, or to be examined by
skills      what the model can do, one module each: makers of dialogues
mixture     which skills are trained how often
encoding    dialogues to tokens, through the server's own prompt renderer
vocabulary  the byte-level BPE, learned from the dialogues
shape       the model's configuration
network     Llama 4 in PyTorch, for training
training    the loop; `python -m demo_training` runs everything
"""
