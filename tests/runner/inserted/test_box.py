"""The control page: its table against the obvious model, states, and what a program may write."""

from hypothesis import given
from hypothesis import strategies as st

from softsgx.runner.inserted.box import FREED, IDLE, REPLY, REQUEST, TAKEN, Box, Control
from softsgx.runner.inserted.layout import BOX_SIZE, MAILBOXES


def memory() -> memoryview:
    return memoryview(bytearray(BOX_SIZE))


# Few low bytes, so that chains of probes meet and wrap around.
TIDS = st.builds(
    lambda high, low: 256 * high + low, st.integers(1, 5), st.sampled_from([0, 1, 255])
)


@given(st.lists(st.tuples(st.booleans(), TIDS)))
def test_the_table_is_a_dictionary(moves: list[tuple[bool, int]]) -> None:
    control = Control(memory())
    model: dict[int, int] = {}
    for insert, tid in moves:
        if insert:
            mailbox = control.insert(tid)
            assert mailbox is not None
            assert model.setdefault(tid, mailbox) == mailbox
        else:
            control.remove(tid)
            model.pop(tid, None)
        assert {tid: control.find(tid) for tid in model} == model
        assert len(set(model.values())) == len(model)


@given(st.lists(TIDS, unique=True))
def test_a_table_that_was_emptied_is_as_new(tids: list[int]) -> None:
    """Freed slots do not pile up until every search goes once around."""
    view = memory()
    control = Control(view)
    for tid in tids:
        control.insert(tid)
    for tid in tids:
        control.remove(tid)
    freed = view.cast("I").tolist().count(FREED)
    assert freed < len(tids) or not tids
    for tid in reversed(tids):
        control.insert(tid)
    for tid in reversed(tids):
        control.remove(tid)


def test_a_full_table() -> None:
    control = Control(memory())
    tids = range(1000, 1000 + MAILBOXES)
    assert sorted(m for tid in tids if (m := control.insert(tid)) is not None) == list(range(256))
    assert control.insert(5) is None
    assert control.find(5) is None
    control.remove(1001)
    assert control.insert(5) == 1001 % MAILBOXES
    assert control.insert(1002) == 1002 % MAILBOXES, "has one already"
    control.remove(4711)
    assert control.find(1000) == 1000 % MAILBOXES


def test_only_requests_are_taken_and_once() -> None:
    control = Control(memory())
    for mailbox, state in {3: REQUEST, 4: REPLY, 5: TAKEN, 6: IDLE, 255: REQUEST}.items():
        control.set_state(mailbox, state)
    assert control.take() == [3, 255]
    assert control.take() == []
    assert [control.state(mailbox) for mailbox in (3, 4, 5, 6)] == [TAKEN, REPLY, TAKEN, IDLE]


def test_states_that_a_program_invents_are_not_requests() -> None:
    control = Control(memory())
    control.set_state(7, 0x0101_0100)
    control.set_state(8, 0x0101_0101)
    assert control.take() == []


def test_a_new_owner_finds_its_mailbox_idle() -> None:
    control = Control(memory())
    mailbox = control.insert(77)
    assert mailbox is not None
    control.set_state(mailbox, REQUEST)
    control.remove(77)
    assert control.take() == []
    control.set_state(mailbox, REPLY)
    assert control.insert(77) == mailbox
    assert control.state(mailbox) == IDLE


def test_boxes_do_not_overlap() -> None:
    view = memory()
    boxes = [Box.at(view, i) for i in range(MAILBOXES)]
    for i, box in enumerate(boxes):
        box.registers = [i << 32 | j for j in range(18)]
        box.fx = bytes([i]) * 512
    for i, box in enumerate(boxes):
        assert box.registers == tuple(i << 32 | j for j in range(18))
        assert box.fx == bytes([i]) * 512
    assert Control(view).take() == []
    assert Control(view).doorbell == 0
