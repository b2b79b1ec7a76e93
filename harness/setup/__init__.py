"""What a run needs and this machine lacks: toolchain, engine, images, cache, room."""
