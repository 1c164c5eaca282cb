"""The simulator: a discrete-event shell around `t2i_policy`, for what-if questions and for the papers' experiments.

It mirrors the gateway (observe -> decide -> apply) in virtual time: every decision is made by the same pure functions,
only clocks, workers and images are simulated. `engine` is the story; `scenario` goes in, `outcomes` come
out.
"""
