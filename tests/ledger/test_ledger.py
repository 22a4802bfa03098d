"""The ledger: what a reservation holds, charges and gives back."""

from __future__ import annotations

import pytest

from streamguard.core import ledger
from streamguard.core.accounts import Balance, Demand, Grant, Refusal, Window
from streamguard.core.books import DONE, LATE, MAX_AMOUNT, Books
from streamguard.errors import ConfigurationError

T = 1_700_000_000.0
MINUTE = Window(60)
DAY = Window(86_400, calendar=True)


def tokens(account="a", capacity=1000, *, fixed=100, rate=1, window=MINUTE, soft=False):
    return Demand(account, capacity, window, fixed, rate, soft)


def requests(account="r", capacity=2, *, window=MINUTE, soft=False):
    return Demand(account, capacity, window, 1, 0, soft)


def reserve(books, name, demands, *, want=100, least=1, ttl=30.0, now=T):
    return ledger.reserve(books, name, demands, want=want, least=least, ttl=ttl, now=now)


def standing(books, demand, now=T):
    balance = ledger.balances(books, [demand], now=now)[0]
    return balance.used, balance.held


def test_reserve_holds_fixed_and_output():
    books = Books()
    decision = reserve(books, "1", [tokens()])
    assert decision == Grant(100, [Balance(1000, 0, 200)])
    assert decision.balances[0].remaining == 800


def test_grant_is_what_the_tightest_hard_demand_has_room_for():
    books = Books()
    demands = [tokens("a", 1000), tokens("b", 250, rate=3), tokens("s", 0, soft=True)]
    decision = reserve(books, "1", demands, want=500)
    assert decision.output == 50
    assert [balance.held for balance in decision.balances] == [150, 250, 150]
    assert decision.exceeded == (2,)


def test_soft_demand_within_its_capacity_is_not_reported():
    decision = reserve(Books(), "1", [tokens(soft=True)])
    assert decision.exceeded == ()


def test_refusal_holds_nothing_and_gives_the_figures():
    books = Books()
    demands = [tokens("a", 1000), tokens("b", 100, fixed=100)]
    decision = reserve(books, "1", demands, least=5)
    assert decision == Refusal(1, 105, Balance(100, 0, 0), None)
    assert standing(books, demands[0]) == (0, 0)


def test_zero_output_with_least_zero_fits_when_fixed_does():
    assert reserve(Books(), "1", [tokens(capacity=100)], want=50, least=0).output == 0
    assert isinstance(reserve(Books(), "1", [tokens(capacity=99)], least=0), Refusal)


def test_least_above_want_counts_as_want():
    assert reserve(Books(), "1", [tokens()], want=3, least=9).output == 3


def test_settle_charges_what_was_used_and_ends_the_hold():
    books = Books()
    reserve(books, "1", [tokens()])
    assert ledger.settle(books, "1", [130], now=T) == [
        Balance(1000, 130, 0, 1_700_000_061.0),
    ]
    assert ledger.settle(books, "1", [500], now=T)[0].used == 130


def test_settle_may_exceed_the_hold():
    books = Books()
    reserve(books, "1", [tokens()])
    assert ledger.settle(books, "1", [5000], now=T)[0].used == 5000


def test_settle_of_nonsense_is_kept_representable():
    books = Books()
    demands = [tokens(), tokens("b")]
    reserve(books, "1", demands)
    used = [balance.used for balance in ledger.settle(books, "1", [10**30, -5], now=T)]
    assert used == [MAX_AMOUNT, 0]


def test_settle_needs_an_amount_for_each_demand():
    books = Books()
    reserve(books, "1", [tokens()])
    with pytest.raises(ValueError, match="0 amounts for 1 demands"):
        ledger.settle(books, "1", [], now=T)


def test_settle_of_an_unknown_reservation_is_empty():
    assert ledger.settle(Books(), "x", [1], now=T) == ()


def test_release_gives_the_hold_back_once():
    books = Books()
    demands = [tokens(), requests()]
    reserve(books, "1", demands)
    ledger.release(books, "1", now=T)
    ledger.release(books, "1", now=T)
    assert [standing(books, demand) for demand in demands] == [(0, 0), (0, 0)]
    assert ledger.settle(books, "1", [7, 1], now=T)[0].used == 0


def test_released_before_it_arrives_holds_nothing():
    books = Books()
    ledger.release(books, "1", now=T)
    assert reserve(books, "1", [tokens()]) == ledger.NOTHING
    assert standing(books, tokens()) == (0, 0)


def test_repeated_reserve_answers_the_same_and_holds_once():
    books = Books()
    first = reserve(books, "1", [tokens()])
    assert reserve(books, "1", [tokens()], want=7) == first


def test_reserve_of_a_settled_id_is_refused():
    books = Books()
    reserve(books, "1", [tokens()])
    ledger.settle(books, "1", [50], now=T)
    decision = reserve(books, "1", [tokens()], least=2)
    assert isinstance(decision, Refusal)
    assert (decision.needed, decision.retry_after, decision.balance.used) == (102, None, 50)


def test_settled_id_is_forgotten_after_a_while():
    books = Books()
    reserve(books, "1", [tokens()])
    ledger.settle(books, "1", [50], now=T)
    later = T + DONE / 1000
    assert isinstance(reserve(books, "1", [tokens()], now=later - 0.001), Refusal)
    assert isinstance(reserve(books, "1", [tokens()], now=later), Grant)


def test_only_so_many_settled_ids_are_remembered():
    books = Books(remember=3)
    for name in "abcdef":
        reserve(books, name, [tokens()])
        ledger.release(books, name, now=T)
    assert sorted(books.holds) == ["d", "e", "f"]
    ledger.sweep(books, ledger.milliseconds(T + 1e6))
    assert not books.holds
    assert not books.due


def test_forgetting_does_not_take_a_reused_id():
    books = Books(remember=1)
    reserve(books, "a", [tokens()], ttl=1)
    ledger.release(books, "a", now=T)
    later = T + DONE / 1000 + 1
    reserve(books, "a", [tokens()], now=later)
    ledger.release(books, "b", now=later)
    assert standing(books, tokens(), later) == (0, 200)


def test_hold_expires_and_a_late_settle_still_charges():
    books = Books()
    reserve(books, "1", [tokens(), requests()])
    assert standing(books, tokens(), T + 29.999) == (0, 200)
    assert standing(books, tokens(), T + 30) == (0, 0)
    assert standing(books, requests(), T + 30) == (0, 0)
    assert ledger.renew(books, "1", ttl=30, now=T + 31) is False
    settled = ledger.settle(books, "1", [150, 1], now=T + 40)
    assert [balance.used for balance in settled] == [150, 1]


def test_expired_hold_may_be_reserved_again():
    books = Books()
    reserve(books, "1", [tokens()])
    assert reserve(books, "1", [tokens()], now=T + 60).output == 100
    assert standing(books, tokens(), T + 60) == (0, 200)


def test_expired_hold_is_forgotten_at_last():
    books = Books()
    reserve(books, "1", [tokens()])
    gone = T + 30 + LATE / 1000
    assert ledger.settle(books, "1", [1], now=gone) == ()


def test_release_of_an_expired_hold_forgives_the_late_settle():
    books = Books()
    reserve(books, "1", [tokens()])
    ledger.release(books, "1", now=T + 31)
    assert ledger.settle(books, "1", [50], now=T + 32)[0].used == 0


def test_renew_puts_the_expiry_off():
    books = Books()
    reserve(books, "1", [tokens()])
    assert ledger.renew(books, "1", ttl=30, now=T + 20) is True
    assert standing(books, tokens(), T + 49) == (0, 200)
    assert standing(books, tokens(), T + 50) == (0, 0)
    assert ledger.renew(books, "unknown", ttl=30, now=T) is False


def test_extend_holds_more_and_renews():
    books = Books()
    demands = [tokens(capacity=500), requests()]
    reserve(books, "1", demands)
    assert ledger.extend(books, "1", want=50, least=1, ttl=30, now=T + 20).output == 50
    assert standing(books, demands[0], T + 45) == (0, 250)
    assert ledger.extend(books, "1", want=900, least=1, ttl=30, now=T + 45).output == 250
    refused = ledger.extend(books, "1", want=10, least=1, ttl=30, now=T + 45)
    assert refused == Refusal(0, 1, Balance(500, 0, 500), ledger.PATIENCE)
    assert ledger.settle(books, "1", [444, 1], now=T + 45)[0] == Balance(500, 444, 0, T + 106)


def test_extend_of_what_is_not_held_is_refused():
    books = Books()
    assert ledger.extend(books, "1", want=1, least=1, ttl=1, now=T) == ledger.NOTHING


def test_requests_are_charged_when_reserved_and_age_during_the_call():
    books = Books()
    reserve(books, "1", [requests()], ttl=300)
    reserve(books, "2", [requests()], ttl=300)
    refused = reserve(books, "3", [requests()], now=T + 1)
    assert refused == Refusal(0, 1, Balance(2, 2, 0, T + 61), 60.0)
    assert isinstance(reserve(books, "3", [requests()], now=T + 61), Grant)
    assert ledger.settle(books, "1", [1], now=T + 70)[0].used == 1


@pytest.mark.parametrize(("amount", "used"), [(0, 0), (60, 60), (100, 100), (140, 140)])
def test_settle_corrects_what_was_charged_up_front(amount, used):
    books = Books()
    reserve(books, "1", [tokens(rate=0)])
    assert standing(books, tokens(rate=0)) == (100, 0)
    assert ledger.settle(books, "1", [amount], now=T + 10)[0].used == used


def test_up_front_charge_that_aged_away_is_not_refunded():
    books = Books()
    reserve(books, "1", [tokens(rate=0)], ttl=300)
    assert standing(books, tokens(rate=0), T + 61) == (0, 0)
    reserve(books, "2", [tokens(rate=0)], now=T + 61)
    ledger.release(books, "1", now=T + 62)
    assert standing(books, tokens(rate=0), T + 62) == (100, 0)


def test_concurrency_holds_and_charges_nothing():
    books = Books()
    slots = requests("c", 1, window=Window(None))
    reserve(books, "1", [slots])
    refused = reserve(books, "2", [slots])
    assert refused == Refusal(0, 1, Balance(1, 0, 1), ledger.PATIENCE)
    ledger.settle(books, "1", [1], now=T)
    assert standing(books, slots) == (0, 0)


def test_retry_after_waits_for_as_much_as_lacks():
    books = Books()
    for second in (0, 10, 20):
        name = str(second)
        reserve(books, name, [tokens(capacity=300, fixed=0)], want=100, now=T + second)
        ledger.settle(books, name, [100], now=T + second)
    refused = reserve(books, "x", [tokens(capacity=300, fixed=150)], want=9, least=0, now=T + 30)
    assert refused == Refusal(0, 150, Balance(300, 300, 0, T + 71), 41.0)


def test_refusal_names_the_demand_that_takes_longest():
    books = Books()
    demands = [requests("m", 1), requests("d", 1, window=DAY)]
    reserve(books, "1", demands)
    refused = reserve(books, "2", demands)
    assert refused.which == 1
    assert refused.balance.resets_at == 1_700_006_400.0
    assert refused.retry_after == 6_400.0


def test_calendar_window_starts_anew_at_its_boundary():
    books = Books()
    demand = tokens(window=DAY)
    reserve(books, "1", [demand])
    ledger.settle(books, "1", [400], now=T)
    assert standing(books, demand, 1_700_006_399.9) == (400, 0)
    assert standing(books, demand, 1_700_006_400.0) == (0, 0)


def test_clock_going_back_keeps_what_was_used():
    books = Books()
    reserve(books, "1", [tokens()])
    ledger.settle(books, "1", [400], now=T + 50)
    assert standing(books, tokens(), T) == (400, 0)
    assert standing(books, tokens(), T + 60.9) == (400, 0)
    assert standing(books, tokens(), T + 61) == (0, 0)


def test_two_demands_on_one_account_are_refused():
    with pytest.raises(ConfigurationError, match="same account"):
        reserve(Books(), "1", [tokens(), tokens(fixed=5)])


def test_no_demands_grant_everything():
    assert reserve(Books(), "1", [], want=77) == Grant(77, [])


def test_windows_of_one_account_are_kept_apart():
    books = Books()
    reserve(books, "1", [tokens()])
    reserve(books, "2", [tokens(window=DAY)])
    ledger.settle(books, "1", [10], now=T)
    assert standing(books, tokens()) == (10, 0)
    assert standing(books, tokens(window=DAY)) == (0, 200)


def test_books_of_millions_of_tenants_stay_bounded():
    books = Books()
    most = 0
    for number in range(6000):
        now = T + number
        reserve(books, str(number), [tokens(f"t{number}")], now=now)
        ledger.settle(books, str(number), [100], now=now)
        most = max(most, len(books.accounts), len(books.holds))
    assert most < 400
