"""Every decision of t2i-serving as a pure function: frozen inputs, `now` and random draws as arguments, a reason out.

Nothing here reads a clock, draws a random number, logs, or talks to anyone (import-linter enforces it). Gateway,
operator and simulator are shells around these functions: observe -> decide -> apply.
"""
