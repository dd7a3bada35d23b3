"""A picture in a question: a vision transformer with RANDOM weights in front of a language model, all cut over edge nodes."""
