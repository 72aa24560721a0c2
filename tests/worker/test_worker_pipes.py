"""Frames survive any split; what is no frame is refused."""

from __future__ import annotations

import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scattersphere.worker import pipes as wire
from scattersphere.worker.pipes import Kind, Receiver, Sender

FRAMES = st.lists(st.tuples(st.sampled_from(list(Kind)), st.binary(max_size=200)), max_size=8)


class Pieces:
    """Stands for `os.read`: gives the bytes in pieces of the wanted sizes."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self.data, self.sizes = data, sizes

    def __call__(self, descriptor, size):
        size = min(size, self.sizes.pop() if self.sizes else size)
        piece, self.data = self.data[:size], self.data[size:]
        return piece

    def into(self, descriptor, buffers):
        """Stand for `os.readv`."""
        piece = self(descriptor, len(buffers[0]))
        buffers[0][: len(piece)] = piece
        return len(piece)


def encoded(frames) -> bytes:
    return b"".join(wire._HEADER.pack(kind, len(payload)) + payload for kind, payload in frames)


def received(data: bytes, sizes: list[int]) -> list[tuple[Kind, bytes]]:
    with pytest.MonkeyPatch.context() as patch:
        pieces = Pieces(data, sizes)
        patch.setattr(os, "read", pieces)
        patch.setattr(os, "readv", pieces.into)
        receiver, frames = Receiver(0), []
        while (frame := receiver.receive()) is not None:
            frames.append(frame)
    return frames


@pytest.fixture(params=["short ones", "large ones"], autouse=True, scope="module")
def _are_large(request):
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "large ones":
            patch.setattr(wire, "LARGE", 20)
        yield


@given(FRAMES, st.lists(st.integers(1, 50)))
def test_frames_are_the_same_however_the_pipe_splits_them(frames, sizes):
    assert received(encoded(frames), sizes) == frames


@given(FRAMES.filter(bool), st.data())
def test_a_frame_that_breaks_off_is_an_end(frames, data):
    whole = encoded(frames)
    cut = data.draw(st.integers(0, len(whole) - 1))
    assert received(whole[:cut], []) == frames[: len(received(whole[:cut], []))]
    assert len(received(whole[:cut], [])) < len(frames)


@pytest.mark.parametrize("data", [b"\xff" * 9, wire._HEADER.pack(1, wire.FRAME_LIMIT + 1)])
def test_what_is_no_frame_is_refused(data):
    with pytest.raises(ValueError, match="not a frame"):
        received(data, [])


def test_a_payload_that_is_too_long_is_refused_before_a_byte_is_written(monkeypatch):
    monkeypatch.setattr(wire, "FRAME_LIMIT", 10)
    monkeypatch.setattr(os, "write", None)
    with pytest.raises(ValueError, match="11 bytes are too many"):
        Sender(0).send(Kind.CALL, b"x" * 11)


def test_frames_of_several_threads_do_not_mix_and_long_ones_are_written_whole():
    outlet, inlet = os.pipe()
    sender, receiver = Sender(inlet), Receiver(outlet)
    payloads = [bytes([number]) * 150_000 for number in range(8)]  # more than a pipe holds
    threads = [threading.Thread(target=sender.send, args=(Kind.LOG, payload)) for payload in payloads]
    for thread in threads:
        thread.start()
    got = [receiver.receive() for _ in payloads]
    for thread in threads:
        thread.join()
    sender.close()
    assert sorted(payload for _, payload in got) == payloads
    assert receiver.receive() is None
    receiver.close()
    for end in (sender, receiver):
        end.close()  # again: harmless


def test_a_closed_sender_sends_nothing_and_says_nothing():
    outlet, inlet = os.pipe()
    sender = Sender(inlet)
    sender.close()
    sender.send(Kind.LOG, b"x")
    assert os.read(outlet, 1) == b""
    os.close(outlet)
