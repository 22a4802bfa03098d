"""Nobody waits longer than their turn."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from streamguard.core.fair_queue import FairQueue, Ticket

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("join"), st.sampled_from("abc"), st.integers(0, 1)),
        st.tuples(st.just("serve")),
        st.tuples(st.just("leave"), st.integers(0, 9)),
    ),
    max_size=40,
)


@settings(max_examples=100, deadline=None)
@given(STEPS)
def test_order_is_by_priority_then_turn_then_arrival(steps):
    queue, waiting, number = FairQueue(), [], 0
    behind: dict[str, set[str]] = {}
    for step in steps:
        if step[0] == "join":
            number += 1
            ticket = Ticket(f"t{number}", step[1], step[2])
            waiting.append(ticket)
            assert queue.join(ticket) == queue.positions()[ticket.id]
        elif step[0] == "leave" and waiting:
            gone = waiting.pop(step[1] % len(waiting))
            queue.leave(gone.id, served=False)
        elif step[0] == "serve" and waiting:
            head = queue.head()
            ticket = next(each for each in waiting if each.id == head)
            assert ticket.priority == max(each.priority for each in waiting)
            mine = [
                e for e in waiting if (e.tenant, e.priority) == (ticket.tenant, ticket.priority)
            ]
            assert mine[0] is ticket, "within a tenant the first come is the first served"
            passed = behind.setdefault(ticket.tenant, set())
            others = {e.tenant for e in waiting if e.priority == ticket.priority} - {ticket.tenant}
            assert not passed & others, "served again before others that waited since"
            behind[ticket.tenant] = others
            for tenant, names in behind.items():
                if tenant != ticket.tenant:
                    names.discard(ticket.tenant)
            waiting.remove(ticket)
            queue.leave(ticket.id, served=True)
        for tenant in behind:
            behind[tenant] &= {e.tenant for e in waiting}
        assert len(queue) == len(waiting)
        assert sorted(queue.positions().values()) == list(range(1, len(waiting) + 1))
        assert set(queue.positions()) == {each.id for each in waiting}


def test_one_call_of_a_small_tenant_is_second_behind_two_hundred():
    queue = FairQueue()
    for number in range(200):
        queue.join(Ticket(f"big{number}", "big"))
    assert queue.join(Ticket("small", "small")) == 2
    assert queue.join(Ticket("vip", "big", priority=1)) == 1


def test_an_empty_queue_has_no_head_and_leaving_twice_is_nothing():
    queue = FairQueue()
    assert queue.head() is None
    queue.leave("nobody", served=True)
    assert len(queue) == 0
