"""The operator's metrics (docs/metrics.md lists them; a test compares). No label names a pool: there may be many."""

from prometheus_client import CollectorRegistry

from t2i_runtime.metrics import MetricMaker

PREFIX = "t2i_operator"


class OperatorMetrics:
    """All of them on one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        make = MetricMaker(PREFIX, registry)
        counter, gauge = make.counter, make.gauge
        self.reconciles = counter("reconciles", "Looks at a pool, by how they ended.", "outcome")
        self.duration = make.seconds("reconcile", "One look at a pool and what followed.")
        self.writes = counter("writes", "Writes asked of the API server, by kind of object.", "kind")
        self.retries = counter("api_retries", "Calls that had to be repeated, by HTTP status; 0 = no answer.", "status")
        self.replans = counter("replans", "New plans, by reason.", "reason")
        self.moves = counter("model_moves", "Workers told to hold another model, by how far they are.", "stage")
        self.polls = counter("demand_polls", "Questions to gateways for their demand, by outcome.", "outcome")
        self.audit_polls = counter("audit_polls", "Questions to auditors for their audits, by outcome.", "outcome")
        self.watch_events = counter("watch_events", "Events heard, by kind of object.", "kind")
        self.watch_restarts = counter("watch_restarts", "Times that all watches ended and were begun anew.")
        self.leader = gauge("leader", "1 while this process holds the lease.")
        self.pools = gauge("pools", "Pools that are looked after.")
        self.queued = gauge("queued_pools", "Pools that wait for their turn.")
        self.tasks = gauge("tasks", "Tasks of the event loop that reconciles.")
        self.event_age = gauge("last_watch_event_age_seconds", "Since the last event of any watch.")
        self.deaf = gauge("unheard_write_age_seconds", "Since the oldest own write that no watch has reported yet.")
