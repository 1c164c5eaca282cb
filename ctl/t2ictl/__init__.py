"""The command line of t2i-serving: run a pool on this machine, send prompts, ask why, measure, demonstrate."""
