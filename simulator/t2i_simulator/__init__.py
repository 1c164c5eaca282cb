"""The simulator: a discrete-event shell around `t2i_policy`, for what-if questions and for the papers' experiments.

It does in virtual time what the gateway does: observe, decide, apply. The same pure functions make every decision;
only clocks, workers and images are simulated. Start to read in `engine`: a `Scenario` goes in, `Outcomes` come out.
"""
