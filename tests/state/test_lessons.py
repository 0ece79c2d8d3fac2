"""What people decide about quarantine is taught to the scanner, once, and what they decided last."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.model import Placeholder, Role
from gateway.state import lessons, quarantine
from gateway.state.folders import Place
from gateway.state.lessons import Lesson
from gateway.state.quarantine import Review
from tests.support.postroom import JUNK_VERDICT, NOW, Postroom, open_postroom

BY_US = replace(JUNK_VERDICT, junk_alone=False)


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Postroom]:
    with open_postroom(tmp_path) as room:
        yield room


@pytest.fixture
def inbox(room: Postroom) -> Place:
    return room.watch()


def spam(room: Postroom, inbox: Place, uid: int = 1) -> int:
    id = room.arrive(inbox, uid)
    room.route(id, f"<{uid}@c.example>", verdict=BY_US)
    return id


def due(room: Postroom, at: int = NOW) -> list[Lesson]:
    return room.store.read(lessons.due, at, 10).result(5)


def confirm(room: Postroom, id: int, at: int = NOW) -> None:
    assert room.store.submit(quarantine.confirm, Review(id, at)).result(5).messages


def release(room: Postroom, id: int, at: int = NOW) -> None:
    assert room.store.submit(quarantine.release, Review(id, at)).result(5).messages


def test_a_confirmation_teaches_spam_and_a_release_the_opposite(room: Postroom, inbox: Place) -> None:
    bad, good, unseen = spam(room, inbox, 1), spam(room, inbox, 2), spam(room, inbox, 3)
    confirm(room, bad)
    release(room, good)
    assert due(room) == [Lesson(bad, True, 0), Lesson(good, False, 0)]
    assert unseen not in {lesson.message for lesson in due(room)}


def test_all_messages_of_a_conversation_are_taught(room: Postroom, inbox: Place) -> None:
    first = room.arrive(inbox, 1)
    conversation = room.route(first, "<1@c.example>", verdict=BY_US).conversation
    second = room.arrive(inbox, 2)
    room.route(second, "<2@c.example>", "<1@c.example>", verdict=BY_US)
    confirm(room, conversation)
    assert due(room) == [Lesson(first, True, 0), Lesson(second, True, 0)]


def test_a_lesson_that_is_tried_comes_again_in_its_time(room: Postroom, inbox: Place) -> None:
    id = spam(room, inbox)
    confirm(room, id)
    room.store.submit(lessons.begin, (id, NOW + 60_000)).result(5)
    assert due(room, NOW + 59_999) == []
    assert due(room, NOW + 60_000) == [Lesson(id, True, 1)]
    assert room.store.read(lessons.waiting).result(5) == 1


def test_who_thinks_better_of_it_is_taught_in_place_of_the_first_judgement(room: Postroom, inbox: Place) -> None:
    id = spam(room, inbox)
    confirm(room, id)
    room.store.submit(lessons.begin, (id, NOW + 60_000)).result(5)
    release(room, id)
    assert due(room) == [Lesson(id, False, 0)]


def test_a_judgement_that_changes_while_the_first_is_taught_is_taught_next(room: Postroom, inbox: Place) -> None:
    id = spam(room, inbox)
    confirm(room, id)
    (taught,) = due(room)
    release(room, id)
    room.store.submit(lessons.settle, taught).result(5)
    assert due(room) == [Lesson(id, False, 0)]
    room.store.submit(lessons.settle, due(room)[0]).result(5)
    assert due(room) == []


def test_a_placeholder_teaches_nothing(room: Postroom, inbox: Place) -> None:
    junk = room.watch("Junk", Role.JUNK)
    id = room.arrive(junk, 1, role=Role.JUNK, placeholder=Placeholder.HEADED)
    room.route(id, "<1@c.example>", verdict=JUNK_VERDICT)
    confirm(room, id)
    assert due(room) == []


def test_with_nobody_to_teach_they_are_forgotten(room: Postroom, inbox: Place) -> None:
    for uid in (1, 2):
        confirm(room, spam(room, inbox, uid))
    assert room.store.submit(lessons.forget, None).result(5) == 2
    assert room.store.read(lessons.waiting).result(5) == 0
