"""The control plane: four modules that do not know each other, joined by `tick` (pure) and `control_loop` (its shell)."""
