"""What a worker decides alone."""

from __future__ import annotations

from streamguard.core import alone
from streamguard.core.accounts import Balance, Demand, Grant, Refusal, Window
from streamguard.core.alone import Alone

MINUTE, SLOTS = Window(60), Window(None)
T = 1_700_000_000.0


def demand(account="a", capacity=1000, *, window=MINUTE, soft=False):
    return Demand(account, capacity, window, 10, 1, soft)


def reserve(worker, name, *demands, want=100, now=T):
    return worker.reserve(name, demands, want=want, least=1, ttl=30, now=now)


def sharing(share, remaining):
    worker = Alone(lambda _: share)
    worker.learn([demand()], [Balance(1000, 1000 - remaining, 0)])
    return worker


def test_closed_and_unknown_decide_nothing():
    assert reserve(Alone(lambda _: "closed"), "1", demand()) is None
    assert reserve(Alone(lambda _: 0.5), "1", demand()) is None


def test_open_grants_whatever_the_capacity():
    assert reserve(Alone(lambda _: "open"), "1", demand(capacity=0)).output == 100


def test_one_closed_limit_closes_the_call():
    worker = Alone(lambda d: "closed" if d.account == "b" else "open")
    assert reserve(worker, "1", demand(), demand("b")) is None
    assert reserve(worker, "2", demand(), demand("b", soft=True)).output == 100


def test_share_bounds_what_is_spent_in_all():
    worker = sharing(0.5, 300)
    assert reserve(worker, "1", demand()).output == 100
    assert reserve(worker, "2", demand()).output == 30
    assert isinstance(reserve(worker, "3", demand()), Refusal)
    worker.settle("1", [50], now=T)
    assert reserve(worker, "4", demand()).output == 50
    worker.release("2", now=T)
    assert reserve(worker, "5", demand()).output == 30


def test_share_is_given_again_by_the_next_window():
    worker = sharing(0.5, 200)
    reserve(worker, "1", demand(), want=90)
    worker.settle("1", [100], now=T)
    assert isinstance(reserve(worker, "2", demand()), Refusal)
    assert isinstance(reserve(worker, "3", demand(), now=T + 61), Grant)


def test_extend_and_renew_stay_within_the_share():
    worker = sharing(0.5, 300)
    reserve(worker, "1", demand())
    assert worker.holds("1")
    assert worker.renew("1", ttl=30, now=T)
    assert worker.extend("1", want=100, least=1, ttl=30, now=T).output == 40


def test_debts_add_up_by_account_and_are_taken_once():
    worker = Alone(lambda _: "open")
    slots = demand("s", window=SLOTS)
    for name in "12":
        reserve(worker, name, demand(), slots)
        worker.settle(name, [30, 1], now=T)
    reserve(worker, "3", demand())
    worker.settle("3", [0], now=T, owed=False)
    assert [(d.demand.account, d.amount) for d in worker.take_debts()] == [("a", 60)]
    assert worker.take_debts() == []


def test_paid_up_the_worker_starts_anew_unless_a_call_is_under_way():
    worker = sharing(1.0, 110)
    reserve(worker, "1", demand())
    worker.take_debts()
    worker.paid()
    assert isinstance(reserve(worker, "2", demand()), Refusal)
    worker.settle("1", [110], now=T)
    worker.take_debts()
    assert isinstance(reserve(worker, "2", demand()), Refusal)  # taken is not yet paid
    worker.paid()
    assert reserve(worker, "3", demand()).output == 100


def test_only_so_many_accounts_are_remembered(monkeypatch):
    monkeypatch.setattr(alone, "KNOWN", 2)
    worker = Alone(lambda _: 1.0)
    for name in "abca":
        worker.learn([demand(name)], [Balance(500, 0, 0)])
    assert reserve(worker, "1", demand("b")) is None
    assert isinstance(reserve(worker, "2", demand("a")), Grant)


def test_a_smooth_rate_flows_at_the_workers_share_of_it():
    steady = demand(window=Window(60, leak=60))
    worker = Alone(lambda _: 0.5)
    worker.learn([steady], [Balance(1000, 800, 0)])
    reserve(worker, "1", steady, want=90)
    worker.settle("1", [100], now=T)
    refused = reserve(worker, "2", steady)
    assert (refused.needed, refused.retry_after) == (11, 22)
    assert reserve(worker, "3", steady, now=T + 22).output == 1
    free = Alone(lambda _: "open")
    assert reserve(free, "1", steady).output == 100
