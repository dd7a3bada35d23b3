"""What a MEC host keeps by content: artefacts and model packages. Used by the compiler, the platform and edge nodes alike."""
