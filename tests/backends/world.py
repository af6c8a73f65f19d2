"""Workers and their pool, without threads or waiting: the pool is asked whenever it is due."""

from adaptive_rate_limiter.core.bucket import Bucket
from adaptive_rate_limiter.core.lease import Lease, Terms
from adaptive_rate_limiter.core.pool import Pool
from adaptive_rate_limiter.core.queue import Call
from adaptive_rate_limiter.types import QuotaReading, RateLimitInfo


class World:
    """A pool, its time, and the workers on it."""

    def __init__(self):
        self.pool, self.now, self.workers = Pool(), 1000.0, []

    def worker(self, *quotas, **terms):
        worker = Worker(self, f"w{len(self.workers)}", quotas, terms)
        self.workers.append(worker)
        return worker


class Worker:
    def __init__(self, world, name, quotas, terms):
        self.world, self.reachable, self.renewals = world, True, 0
        self.bucket = Bucket("b", quotas, world.now)
        self.lease = Lease(self.bucket, Terms(name, **terms), world.now)

    def call(self, requests=1.0, **costs):
        """A call that was put in line, and went if the pool would have it."""
        call = Call({"requests": requests, **costs}, since=self.world.now)
        self.bucket.submit(call, self.world.now)
        self.settle_down()
        return call

    def settle_down(self):
        for _ in range(20):
            now = self.world.now
            if self.lease.due_at(now) > now:
                break
            renewal = self.lease.prepare(now)
            self.renewals += 1
            if self.reachable:
                self.lease.apply(self.bucket, self.world.pool.renew(renewal, now), now, now)
            else:
                self.lease.fail(self.bucket, 0.5, now)
            self.bucket.dispatch(now)
        self.bucket.dispatch(self.world.now)

    def told(self, call, remaining, limit=100.0, reset_after=None, refusal=None):
        quotas = (QuotaReading("requests", limit, remaining, reset_after),) if limit else ()
        self.bucket.observe(call, RateLimitInfo(quotas=quotas, refusal=refusal), self.world.now)
        self.settle_down()

    def left(self):
        return self.lease.gauges()[0].available(self.world.now)
