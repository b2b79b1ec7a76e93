"""What a run needs and this machine lacks: toolchain, packages, engine, images, cache, room."""
