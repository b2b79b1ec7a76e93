"""The places where the program meets the world: processes, HTTP, SSH, waiting."""
