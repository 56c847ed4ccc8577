"""Places given in the order of asking."""

from __future__ import annotations

import signal
import threading
from typing import Callable, List

import pytest
from patience import PATIENCE_S, wait_for

from rtda_runtime.threads.fair_lock import FairLock, GivenUpError, _Waiter, waits_until


def waiting_thread(turns: FairLock, work: Callable[[int], None]) -> threading.Thread:
    """A thread that waits for a place, to be given ``work``; returns when it waits."""
    before = turns.waiting

    def serve() -> None:
        with turns as place:
            work(place)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    wait_for(lambda: turns.waiting == before + 1)
    return thread


def test_who_waits_longest_is_next() -> None:
    turns, order = FairLock(), []  # type: FairLock, List[int]
    with turns:
        threads = [waiting_thread(turns, lambda _, n=number: order.append(n)) for number in range(6)]  # type: ignore[misc]
    for thread in threads:
        thread.join(PATIENCE_S)
    assert order == list(range(6))


def test_who_lets_go_and_asks_again_at_once_stands_behind_who_waits() -> None:
    turns, order = FairLock(), []  # type: FairLock, List[str]
    with turns:
        order.append("first")
        other = waiting_thread(turns, lambda _: order.append("other"))
    with turns:
        order.append("first")
    other.join(PATIENCE_S)
    assert order == ["first", "other", "first"]


def test_as_many_go_on_at_once_as_there_are_places() -> None:
    turns, together = FairLock(3), threading.Barrier(3)
    places: List[int] = []

    def work(place: int) -> None:
        together.wait(PATIENCE_S)
        places.append(place)

    def serve() -> None:
        for _ in range(5):
            with turns as place:
                work(place)

    threads = [threading.Thread(target=serve, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert sorted(places) == sorted([0, 1, 2] * 5), "no place is held twice"


def test_an_exception_gives_the_place_back() -> None:
    turns = FairLock()
    with pytest.raises(ZeroDivisionError), turns:
        raise ZeroDivisionError
    with turns as place:
        assert place == 0


def test_whose_wait_ends_by_ctrl_c_keeps_nobody_waiting() -> None:
    turns, main = FairLock(), threading.get_ident()
    release = threading.Event()

    def hold() -> None:
        with turns:
            release.wait(PATIENCE_S)

    def interrupt() -> None:
        wait_for(lambda: turns.waiting == 1)
        signal.pthread_kill(main, signal.SIGINT)

    holder = threading.Thread(target=hold, daemon=True)
    holder.start()
    wait_for(lambda: not turns.free)
    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt), turns:
        raise AssertionError("the place is held")
    assert not turns.waiting
    release.set()
    holder.join(PATIENCE_S)
    with turns as place:
        assert place == 0


def test_a_place_may_be_kept_for_a_while() -> None:
    turns, other, order = FairLock(2), FairLock(), []  # type: FairLock, FairLock, List[str]
    with turns.kept() as place:
        for number in range(3):
            with turns as same, other:
                assert same == place and len(turns.free) == 1 and not other.free
                order.append(f"kept {number}")
        assert len(turns.free) == 1 and len(other.free) == 1
    assert turns.free == [0, 1]
    one = FairLock()
    with one.kept():
        waiting = waiting_thread(one, lambda _: order.append("other"))
        with one:
            order.append("kept again")
    waiting.join(PATIENCE_S)
    assert order == ["kept 0", "kept 1", "kept 2", "kept again", "other"]


def test_places_of_several_objects_may_be_kept_at_once() -> None:
    one, two = FairLock(), FairLock()
    with one.kept() as first, two.kept() as second:
        for turns, place in ((one, first), (two, second), (one, first)):
            with turns as same:
                assert same == place
            assert one.is_kept and two.is_kept and not one.free and not two.free
    for turns in (one, two):
        assert not turns.is_kept and turns.free == [0]
    with two.kept():
        with one:
            pass
        assert one.free == [0], "that one was not kept"


def test_kept_blocks_may_be_nested_and_nobody_comes_in_before_the_outermost_ends() -> None:
    turns, order = FairLock(), []  # type: FairLock, List[str]
    with turns.kept() as place:
        waiting = waiting_thread(turns, lambda _: order.append("other"))
        for _ in range(2):
            with turns.kept() as same:
                with turns:
                    pass
                assert same == place
            assert turns.is_kept and not turns.free and turns.waiting == 1
        with turns:
            order.append("kept still")
        assert turns.waiting == 1
    waiting.join(PATIENCE_S)
    assert order == ["kept still", "other"]
    assert not turns.is_kept and turns.free == [0]


def test_what_one_thread_keeps_another_does_not() -> None:
    turns, seen = FairLock(2), []  # type: FairLock, List[bool]

    def serve() -> None:
        with turns:
            seen.append(turns.is_kept)

    with turns.kept():
        other = threading.Thread(target=serve, daemon=True)
        other.start()
        other.join(PATIENCE_S)
        assert seen == [False] and len(turns.free) == 1, "its place is free again"


def test_an_exception_in_kept_blocks_is_the_one_that_is_raised() -> None:
    one, two = FairLock(), FairLock()
    with pytest.raises(ZeroDivisionError), one.kept(), two.kept(), one.kept(), one:
        raise ZeroDivisionError
    for turns in (one, two):
        assert not turns.is_kept and turns.free == [0]


def test_a_wait_may_be_given_up() -> None:
    turns, stop, ends = FairLock(), threading.Event(), []  # type: FairLock, threading.Event, List[str]

    def serve() -> None:
        try:
            with waits_until(stop), turns:
                ends.append("served")
        except GivenUpError:
            ends.append("given up")
        with turns:
            ends.append("outside the block it waits")

    with turns:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        wait_for(lambda: turns.waiting == 1)
        other = waiting_thread(turns, lambda _: ends.append("other"))
        assert ends == []
        stop.set()
        wait_for(lambda: ends == ["given up"] and turns.waiting == 2)
    for waiting in (thread, other):
        waiting.join(PATIENCE_S)
    assert ends == ["given up", "other", "outside the block it waits"]


def test_who_is_served_is_not_given_up() -> None:
    stop = threading.Event()
    stop.set()
    with waits_until(stop), FairLock() as place:
        assert place == 0


def test_a_place_that_came_with_ctrl_c_goes_to_the_next() -> None:
    turns, served = FairLock(), threading.Event()
    mine = _Waiter(threading.get_ident())
    with turns:
        turns._waiting.append(mine)
        waiting = waiting_thread(turns, lambda _: served.set())
    assert turns._held == {mine.thread: 0} and not served.is_set(), "it came"
    turns._withdraw(mine)  # as where the wait ends by an exception
    assert served.wait(PATIENCE_S)
    waiting.join(PATIENCE_S)
    assert turns.free == [0]


def test_a_place_lost_to_ctrl_c_is_found_by_the_thread_that_lost_it() -> None:
    turns = FairLock(2)
    lost = turns.__enter__()  # and no __exit__: the exception came between them
    with turns as place:
        assert place == lost
    assert turns.free == [0, 1]
