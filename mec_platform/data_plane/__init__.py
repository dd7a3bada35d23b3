"""Has the host enforce the rules of application instances: what is wanted is compiled, purely, and applied by adapters."""
