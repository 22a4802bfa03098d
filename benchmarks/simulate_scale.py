"""A thousand workers on one set of books: what goes over, what is stranded, what is asked.

python benchmarks/simulate_scale.py [--quick] [--json] [--plot FILE.png]

Simulated time, real ``core.ledger`` and ``core.batch``. Half of the requests are one hot
tenant's, the others Zipf over ten thousand tenants; workers crash, a fifth of the workers loses
the store for a while (fail-closed), in the last column the store's clock steps (a step forward
of 5 s releases 5 s of usage early, whatever the store). With and without batches:

- overshoot: the most that a tenant's calls settled within any minute, over its limit
- held for nobody: what is held and belongs to no call that runs: what batches have left, what
  their ended calls used and is not charged yet, and the holds of crashed workers
- left when refused: what settled and running calls left of the hot tenant's limit when one
  of its calls was refused (a sliding window of 60 buckets keeps 1/60 back by itself)
- never billed: what crashed workers' batches had used and not told the store yet
- operations: store calls a request
"""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict, deque
from heapq import heappop, heappush
from itertools import count

from streamguard.core import ledger
from streamguard.core.accounts import Demand, Grant, Window
from streamguard.core.batch import Batch, batch_demand
from streamguard.core.books import Books

MINUTE = Window(60)
HOT, WANT, MAX_AGE = 0, 800, 1.0
TTL, BATCH_TTL, RENEWED = 30.0, 10.0, 3
CRASHES, STEPS, PARTITION = 5, (-3.0, 5.0), (0.55, 0.65)
ROUND_TRIP_US = 25.0
"""Redis CPU for one operation with one limit, microseconds (see benchmarks/stores.py)."""


class Tenant:
    """What a tenant's calls truly did."""

    def __init__(self, capacity):
        self.capacity = capacity
        self.settled = deque()
        self.used = self.running = self.worst = self.total = 0

    def age(self, now):
        while self.settled and self.settled[0][0] <= now - 60:
            self.used -= self.settled.popleft()[1]

    def settle(self, now, amount):
        self.total += amount
        self.settled.append((now, amount))
        self.used += amount
        self.age(now)
        self.worst = max(self.worst, self.used - self.capacity)


class Simulation:
    """Events in simulated time over one ledger."""

    def __init__(self, *, batched, workers, rate, seconds, steps=(), seed=1):
        self.random = random.Random(seed)
        self.batched, self.workers, self.rate, self.seconds = batched, workers, rate, seconds
        self.books, self.now, self.step, self.steps = Books(), 0.0, 0.0, steps
        self.events, self.order, self.names = [], count(), count()
        self.tenants, self.batches, self.last, self.alive = {}, {}, {}, {}
        self.calls = defaultdict(dict)
        self.figures = defaultdict(int)
        self.series = defaultdict(list)
        zipf = [1 / rank**1.1 for rank in range(1, 10_001)]
        self.zipf = [sum(zipf[:rank]) for rank in range(1, 10_001)]

    def at(self, when, event, *words):
        heappush(self.events, (when, next(self.order), event, words))

    def run(self):
        self.at(0.0, self.arrive)
        for number in range(CRASHES):
            self.at(self.seconds * (number + 1) / (CRASHES + 1), self.crash)
        for number, step in enumerate(self.steps, 1):
            self.at(self.seconds * number / 3, self.jump, step)
        for second in range(self.seconds):
            self.at(float(second), self.look)
        while self.events:
            self.now, _, event, words = heappop(self.events)
            event(*words)
        return self.report()

    # -- the store ------------------------------------------------------------------------

    def clock(self):
        return 1_700_000_000 + self.now + self.step

    def ask(self, operation, *words, hot=False, **named):
        self.figures["operations"] += 1
        self.figures["hot operations"] += hot
        return operation(self.books, *words, now=self.clock(), **named)

    def cut_off(self, worker):
        start, end = (part * self.seconds for part in PARTITION)
        return worker % 5 == 0 and start <= self.now < end

    # -- events ---------------------------------------------------------------------------

    def arrive(self):
        if self.now < self.seconds:
            self.at(self.now + self.random.expovariate(self.rate), self.arrive)
            worker = self.random.randrange(self.workers)
            hot = self.random.random() < 0.5
            rank = HOT if hot else 1 + self.random.choices(range(10_000), cum_weights=self.zipf)[0]
            self.request(worker, rank)

    def request(self, worker, rank):
        self.figures["requests"] += 1
        self.figures["hot requests"] += rank == HOT
        share = self.rate * 60 * 900
        capacity = int(share * 0.4) if rank == HOT else int(max(20_000, share / (4 * rank)))
        tenant = self.tenants.setdefault(rank, Tenant(capacity))
        if self.cut_off(worker):
            self.figures["unavailable"] += 1
            return
        demand = Demand(f"t{rank}", capacity, MINUTE, int(self.random.lognormvariate(6, 0.6)), 1)
        take = self.take_batched if self.batched else self.take
        held = take(worker, rank, demand)
        if held is None:
            self.figures["refused"] += 1
            tenant.age(self.now)
            room = capacity - tenant.used - tenant.running
            if rank == HOT:
                self.series["left"].append(max(0, room) / capacity)
            return
        name, batch, amount = held
        tenant.running += amount
        self.calls[worker][name] = (rank, batch, amount)
        used = min(amount, demand.fixed + self.random.randint(50, WANT))
        self.at(self.now + self.random.expovariate(0.5), self.finish, worker, name, used)

    def take(self, _worker, _rank, demand):
        name = str(next(self.names))
        words = {"want": WANT, "least": WANT, "ttl": TTL, "hot": demand.account == "t0"}
        answer = self.ask(ledger.reserve, name, [demand], **words)
        return (name, None, demand.fixed + WANT) if isinstance(answer, Grant) else None

    def take_batched(self, worker, rank, demand):
        amount, batch = demand.fixed + WANT, self.batches.get((worker, rank))
        if batch is None or batch.left < amount:
            size = amount
            if batch is not None:
                self.retire(worker, rank)
            if (worker, rank) in self.last:
                size = self.last[worker, rank].next_size(amount, self.now, MAX_AGE)
            name, asked = str(next(self.names)), batch_demand(demand)
            words = {"want": size, "least": amount, "ttl": BATCH_TTL, "hot": rank == HOT}
            answer = self.ask(ledger.reserve, name, [asked], **words)
            if not isinstance(answer, Grant):
                return None
            batch = Batch(name, asked, answer.output, answer.balances[0], self.now)
            self.alive[name] = (worker, rank, batch)
            self.batches[worker, rank] = self.last[worker, rank] = batch
            self.at(self.now + MAX_AGE, self.grow_old, worker, rank, batch)
        batch.take(amount)
        return str(next(self.names)), batch, amount

    def finish(self, worker, name, used):
        call = self.calls[worker].pop(name, None)
        if call is None:
            return
        rank, batch, amount = call
        self.tenants[rank].running -= amount
        self.tenants[rank].settle(self.now, used)
        if batch is None:
            self.ask(ledger.settle, name, [used], hot=rank == HOT)
            return
        batch.give(amount, used)
        if not batch.flying and self.batches.get((worker, rank)) is not batch:
            self.settle(batch, rank)

    def retire(self, worker, rank):
        batch = self.batches.pop((worker, rank))
        if not batch.flying:
            self.settle(batch, rank)

    def settle(self, batch, rank):
        self.alive.pop(batch.name, None)
        self.ask(ledger.settle, batch.name, [batch.spent], hot=rank == HOT)

    def grow_old(self, worker, rank, batch):
        if self.batches.get((worker, rank)) is batch:
            self.retire(worker, rank)

    def crash(self):
        """A worker loses its calls and its batches; what they used is not billed to anyone."""
        worker = max(self.calls, key=lambda w: len(self.calls[w]))
        self.figures["crashes"] += 1
        for rank, _, amount in self.calls[worker].values():
            self.tenants[rank].running -= amount
        self.calls[worker].clear()
        for key in [key for key in self.batches if key[0] == worker]:
            del self.batches[key]
        for name in [name for name, kept in self.alive.items() if kept[0] == worker]:
            self.figures["lost"] += self.alive.pop(name)[2].spent

    def jump(self, step):
        self.step += step

    def look(self):
        """Renew the batches of long calls, and note how things stand for the hot tenant."""
        if int(self.now) % RENEWED == 0:
            for name, (_, rank, _) in self.alive.items():
                self.ask(ledger.renew, name, ttl=BATCH_TTL, hot=rank == HOT)
        tenant = self.tenants.get(HOT)
        if tenant is None:
            return
        demand = Demand("t0", tenant.capacity, MINUTE, 0, 1)
        balance = ledger.balances(self.books, [demand], now=self.clock())[0]
        over = balance.used + balance.held - tenant.capacity
        self.figures["most booked over"] = max(self.figures["most booked over"], over)
        stranded = (balance.held - tenant.running) / tenant.capacity
        self.series["stranded"].append(max(0.0, stranded))
        self.series["used"].append(balance.used / tenant.capacity)
        self.series["held"].append(balance.held / tenant.capacity)

    def report(self):
        figures, requests = self.figures, self.figures["requests"]
        self.now += TTL + 90
        demands = [Demand(f"t{r}", t.capacity, MINUTE, 0, 1) for r, t in self.tenants.items()]
        held = sum(b.held for b in ledger.balances(self.books, demands, now=self.clock()))
        worst = max((t.worst / t.capacity for t in self.tenants.values()), default=0.0)
        operations, left = figures["operations"] / requests, self.series["left"]
        total = sum(tenant.total for tenant in self.tenants.values())
        return {
            "requests": requests,
            "tenants": len(self.tenants),
            "crashes": figures["crashes"],
            "booked over the limit": max(0, figures["most booked over"]),
            "overshoot in any minute": max(0.0, worst),
            "held for nobody, of the limit": sum(self.series["stranded"]) / self.seconds,
            "refused": figures["refused"] / requests,
            "left when refused, of the limit": sum(left) / max(1, len(left)),
            "unavailable (partition)": figures["unavailable"] / requests,
            "operations a request": operations,
            "of the hot tenant": figures["hot operations"] / figures["hot requests"],
            "used, never billed (crashes)": figures["lost"] / total,
            "held at the end": held,
            "Redis cores for 1M requests/s": 1e6 * operations * ROUND_TRIP_US / 1e6,
        }


def plot(path, runs):
    """How the hot tenant's limit is filled over time, and what is stranded."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(len(runs), 1, figsize=(9, 3 * len(runs)), sharex=True)
    for axis, (name, simulation) in zip(axes, runs.items(), strict=True):
        series = simulation.series
        axis.stackplot(range(len(series["used"])), series["used"], series["held"], alpha=0.6,
                       labels=["settled", "held"])  # fmt: skip
        axis.plot(series["stranded"], color="red", label="held for nobody")
        axis.axhline(1.0, color="black", linewidth=0.8)
        axis.set(title=name, ylabel="part of the limit")
        axis.legend(loc="lower right")
    axes[-1].set_xlabel("seconds")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--plot", metavar="FILE.png")
    args = parser.parse_args()
    many, size = 200, {"rate": 400.0, "seconds": 90}
    if not args.quick:
        many, size = 1000, {"rate": 4000.0, "seconds": 120}
    runs = {
        "10 workers, each call asks": Simulation(batched=False, workers=10, **size),
        "10 workers, batches": Simulation(batched=True, workers=10, **size),
        f"{many:,} workers, each call asks": Simulation(batched=False, workers=many, **size),
        f"{many:,} workers, batches": Simulation(batched=True, workers=many, **size),
        "10 workers, batches, clock -3 s then +5 s": Simulation(
            batched=True, workers=10, steps=STEPS, **size
        ),
    }
    found = {name: simulation.run() for name, simulation in runs.items()}
    if args.plot:
        plot(args.plot, runs)
    if args.json:
        print(json.dumps(found))
        return
    for name in next(iter(found.values())):
        print(f"{name:<32}" + "".join(f"{_text(run[name]):>16}" for run in found.values()))
    print("columns: " + "; ".join(found))


def _text(value):
    return f"{value:,.4f}" if isinstance(value, float) else f"{value:,}"


if __name__ == "__main__":
    main()
