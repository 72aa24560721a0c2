"""Clients with bad manners: timing, order, half-open connections, resets, floods, slowness, misuse of TLS.

Each takes a `Venue`, where it can connect, and may do what it likes; what the server says meanwhile has to be
well-formed, and the test judges what is left of it all.
"""

import socket
import ssl
import struct
from contextlib import suppress

import anyio
from anyio.abc import SocketAttribute
from wire import closed

_GONE = (anyio.BrokenResourceError, anyio.EndOfStream, anyio.ClosedResourceError, OSError)


def _raw(stream):
    return stream.extra(SocketAttribute.raw_socket)


def _reset_on_close(stream):
    _raw(stream).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def _half_close(stream):
    """Close our half; TLS has none, so that there the whole connection goes."""
    try:
        await stream.send_eof()
    except NotImplementedError:
        await stream.aclose()


async def _send(stream, data):
    try:
        await stream.send(data)
    except _GONE:
        return False
    return True


async def leaves_at_once(venue):
    async with venue.silent():
        pass


async def resets_at_once(venue):
    async with venue.silent() as stream:
        _reset_on_close(stream)


async def half_closes_at_once(venue):
    async with venue.client() as client:
        await _half_close(client.stream)
        await client.rest_of_it()


async def half_closes_inside_a_line(venue):
    async with venue.client() as client:
        await client.stream.send(b"stop 12")
        await _half_close(client.stream)
        await client.rest_of_it()


async def half_closes_inside_an_object(venue):
    async with venue.client() as client:
        await client.stream.send(b'{"cmd":"pi')
        await _half_close(client.stream)
        await client.rest_of_it()


async def half_closes_while_waiting(venue):
    async with venue.client() as client:
        await client.send("wait 1 timeout=0.01", "ping")
        await _half_close(client.stream)
        await client.rest_of_it()


async def resets_inside_a_line(venue):
    async with venue.client() as client:
        await client.stream.send(b"pin")
        _reset_on_close(client.stream)


async def resets_without_reading_the_reply(venue):
    async with venue.client() as client:
        await client.send("help", "help", "help")
        _reset_on_close(client.stream)


async def resets_while_following(venue):
    async with venue.client() as client:
        await client.send("follow", "follow 1 since=0", "ping")
        _reset_on_close(client.stream)


async def leaves_while_waiting(venue):
    async with venue.client() as client:
        await client.send("wait 1 timeout=3600")


async def leaves_while_following(venue):
    async with venue.client() as client:
        await client.send("follow 1 since=0", "follow")


async def leaves_with_replies_unread(venue):
    async with venue.client() as client:
        await client.send(*["help"] * 50)


async def types_one_byte_at_a_time(venue):
    async with venue.client() as client:
        for byte in b'{"cmd":"ping"}\nquit\n':
            if not await _send(client.stream, bytes([byte])):
                break
        await client.rest_of_it()


async def begins_a_line_and_falls_silent(venue):
    async with venue.client() as client:
        await client.stream.send(b"p")
        assert (await client.rest_of_it())[-1]["bye"]["code"] == "timeout"


async def drips_bytes_into_a_line_that_never_ends(venue):
    async with venue.client() as client:
        while await _send(client.stream, b"a"):
            with anyio.move_on_after(0.02):
                await closed(client.stream)
                break


async def hammers_the_return_key(venue):
    async with venue.client() as client:
        for _ in range(30):
            await _send(client.stream, b"\r\n")
        await client.send("quit")
        await client.rest_of_it()


async def floods_with_requests(venue):
    async with venue.client() as client:
        await _send(client.stream, b"ping\n" * 2_000)
        await _half_close(client.stream)
        await client.rest_of_it()


async def floods_with_comments(venue):
    async with venue.client() as client:
        await _send(client.stream, b"#\n" * 4_000)
        assert (await client.rest_of_it())[-1]["bye"]["code"] == "rate-limited"


async def floods_with_blank_lines(venue):
    async with venue.client() as client:
        await _send(client.stream, b"\n" * 4_000)
        assert (await client.rest_of_it())[-1]["bye"]["code"] == "rate-limited"


async def floods_without_a_newline(venue):
    async with venue.client() as client, anyio.create_task_group() as group:
        group.start_soon(client.rest_of_it)  # who does not read what is said may be cut off in mid-flood
        for _ in range(20):
            if not await _send(client.stream, b"x" * 65_536):
                break
        group.cancel_scope.cancel()


async def asks_much_and_reads_nothing(venue):
    async with venue.client() as client:
        _raw(client.stream).setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        with anyio.move_on_after(0.2):
            while await _send(client.stream, b"help\n" * 100):
                pass


async def reads_one_byte_at_a_time(venue):
    async with venue.client() as client:
        await client.send("help", "quit")
        try:
            for _ in range(300):
                await client.stream.receive(1)
        except _GONE:
            pass


async def says_goodbye_and_goes_on(venue):
    async with venue.client() as client:
        await _send(client.stream, b"quit\nping\nshutdown\n" + b"ping\n" * 500)
        reply, bye = await client.rest_of_it()
        assert reply["result"] == {}
        assert bye == {"bye": {"code": "quit"}}


async def sends_after_the_last_words(venue):
    async with venue.client() as client:
        await client.send("quit")
        await client.line()
        await _send(client.stream, b"ping\n" * 10)


async def proves_itself_in_the_middle_of_a_pipeline(venue):
    async with venue.client() as client:
        await client.send("ping", "auth wrong", "ping", f"auth {venue.token}", "whoami", "quit")
        await client.rest_of_it()


async def proves_itself_twice(venue):
    async with venue.client() as client:
        await client.send(f"auth {venue.token}", f"auth {venue.token}", "quit")
        await client.rest_of_it()


async def guesses_tokens(venue):
    async with venue.client() as client:
        await client.send(*[f"auth guess{number}" for number in range(10)])
        await _half_close(client.stream)
        await client.rest_of_it()


async def follows_more_than_it_may(venue):
    async with venue.client() as client:
        await client.send(*["follow"] * 40, "unfollow 1", "unfollow 1", "unfollow 99", "quit")
        await client.rest_of_it()


async def follows_and_unfollows_without_end(venue):
    async with venue.client() as client:
        await client.send(*[f"follow\nunfollow {number}" for number in range(1, 40)], "quit")
        await client.rest_of_it()


async def connects_many_times(venue):
    async with anyio.create_task_group() as group:

        async def one():
            # Over TLS those beyond the limit are refused by a close, in the middle of their handshake.
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                async with venue.silent() as stream:
                    await _send(stream, b"ping\n")

        for _ in range(15):
            group.start_soon(one)


async def sends_urgent_data(venue):
    async with venue.client() as client:
        try:
            raw = _raw(client.stream)
            with socket.fromfd(raw.fileno(), raw.family, raw.type) as same:
                same.send(b"!", socket.MSG_OOB)
        except OSError:  # unix sockets may have none
            pass
        await _send(client.stream, b"quit\n")
        await client.rest_of_it()


async def closes_its_ear(venue):
    async with venue.client() as client:
        _raw(client.stream).shutdown(socket.SHUT_RD)
        await _send(client.stream, b"ping\nhelp\nquit\n")
        await _half_close(client.stream)


async def closes_its_mouth_and_then_its_ear(venue):
    async with venue.client() as client:
        await _send(client.stream, b"wait 1 timeout=0.05\n")
        await _half_close(client.stream)


MANNERS = {
    name: function
    for name, function in list(globals().items())
    if not name.startswith("_") and getattr(function, "__module__", "") == __name__
}
"""Over every transport."""


# ---- misuse of TLS: only where the listener speaks it


async def _tls_plaintext(venue):
    async with venue.plain() as stream:
        await _send(stream, b"auth x\nshutdown\n")
        await closed(stream)


async def _tls_http(venue):
    async with venue.plain() as stream:
        await _send(stream, b"GET / HTTP/1.1\r\n\r\n")
        await closed(stream)


async def _tls_half_a_hello(venue):
    async with venue.plain() as stream:
        await _send(stream, bytes.fromhex("160301020001000001fc0303"))


async def _tls_a_hello_of_zeros(venue):
    async with venue.plain() as stream:
        await _send(stream, bytes.fromhex("1603010200") + bytes(512))
        await closed(stream)


async def _tls_a_record_that_is_too_long(venue):
    async with venue.plain() as stream:
        await _send(stream, b"\x16\x03\x03\xff\xff" + b"a" * 70_000)
        await closed(stream)


async def _tls_a_record_of_no_version(venue):
    async with venue.plain() as stream:
        await _send(stream, b"\x16\x09\x09\x00\x05hello")
        await closed(stream)


async def _tls_an_alert_first(venue):
    async with venue.plain() as stream:
        await _send(stream, b"\x15\x03\x03\x00\x02\x02\x28")
        await closed(stream)


async def _tls_a_reset_inside_the_handshake(venue):
    async with venue.plain() as stream:
        await _send(stream, bytes.fromhex("160301020001000001fc0303"))
        _reset_on_close(stream)


async def _tls_half_close_inside_the_handshake(venue):
    async with venue.plain() as stream:
        await _send(stream, bytes.fromhex("1603010200"))
        await stream.send_eof()
        await closed(stream)


async def _tls_a_client_that_distrusts_us(venue):
    try:
        await venue.dial(ssl.create_default_context())
    except (ssl.SSLError, *_GONE):
        return


async def _tls_a_client_of_long_ago(venue):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-SHA")
    try:
        async with await venue.dial(context):
            pass
    except (ssl.SSLError, *_GONE):
        return


async def _tls_no_farewell(venue):
    async with venue.client() as client:
        await client.send("ping")
        await client.stream.transport_stream.aclose()


async def _tls_garbage_after_the_handshake(venue):
    async with venue.client() as client:
        await client.stream.transport_stream.send(b"\x17\x03\x03\x00\x20" + b"?" * 32)
        await closed(client.stream.transport_stream)


async def _tls_plaintext_after_the_handshake(venue):
    async with venue.client() as client:
        await client.stream.transport_stream.send(b"shutdown\n")
        await closed(client.stream.transport_stream)


async def _tls_within_tls(venue):
    async with venue.client() as client:
        await _send(client.stream, bytes.fromhex("160301020001000001fc0303") + bytes(64))
        await client.rest_of_it()


TLS_MANNERS = {
    name.removeprefix("_tls_"): function
    for name, function in list(globals().items())
    if name.startswith("_tls_")
}
