"""What the client library raises, in our words."""

from __future__ import annotations

import asyncio
import socket

import pytest
import redis.exceptions as theirs

from streamworker.errors import ConnectionLost, DecodeError, ServerError, SetupError
from streamworker.streams.faults import GROUP_GONE, WILL_PASS, code_of, translate


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (theirs.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"), "WRONGTYPE"),
        (theirs.ResponseError("NOGROUP No such key 'orders' or consumer group 'billing'"), "NOGROUP"),
        (theirs.ResponseError("UNBLOCKED the stream key no longer exists"), "UNBLOCKED"),
        (theirs.ResponseError("BUSYGROUP Consumer Group name already exists"), "BUSYGROUP"),
        (theirs.ResponseError("BUSY Redis is busy running a script"), "BUSY"),
        (theirs.ResponseError("MISCONF Redis is configured to save RDB snapshots"), "MISCONF"),
        (theirs.ResponseError("Error running script (call to f_1): @user_script:3: WRONGTYPE Operation against"), "WRONGTYPE"),
        (theirs.ResponseError("ERR Error running script: @user_script: 5: -OOM command not allowed"), "OOM"),
        (theirs.ResponseError("unknown command 'XNACK'"), "ERR"),
        (theirs.ResponseError(""), "ERR"),
        (theirs.NoScriptError("No matching script."), "NOSCRIPT"),
        (theirs.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), "OOM"),
        (theirs.ReadOnlyError("You can't write against a read only replica."), "READONLY"),
        (theirs.NoPermissionError("this user has no permissions"), "NOPERM"),
        (theirs.ResponseError("ACL failure in script: User t has no permissions to run the 'xadd' command script: f"), "NOPERM"),
        (theirs.ResponseError("The user executing the script can't run this command or subcommand script: f"), "NOPERM"),
        (theirs.BusyLoadingError("Redis is loading the dataset in memory"), "LOADING"),
        (theirs.AuthenticationError("Authentication required."), "NOAUTH"),
        (theirs.MaxConnectionsError("too many"), "MAXCLIENTS"),
        (theirs.ConnectionError("max number of clients reached"), "MAXCLIENTS"),
        (theirs.ConnectionError("-LOADING Redis is loading"), "LOADING"),
        (theirs.ClusterDownError("CLUSTERDOWN Hash slot not served"), "CLUSTERDOWN"),
        (theirs.MasterDownError("MASTERDOWN Link with MASTER is down"), "MASTERDOWN"),
        (theirs.ExecAbortError("EXECABORT Transaction discarded"), "EXECABORT"),
    ],
)
def test_an_answer_of_the_server_keeps_its_code(error: Exception, code: str) -> None:
    """Wherever it stands in the text, and where the library has cut it off."""
    translated = translate(error)

    assert isinstance(translated, ServerError)
    assert code == translated.code
    assert str(translated).startswith(str(error) or type(error).__name__)
    assert ("; `streamworker acl`" in str(translated)) == (code == "NOPERM")


@pytest.mark.parametrize(
    "error",
    [
        theirs.ConnectionError("Connection closed by server."),
        theirs.TimeoutError("Timeout reading from socket"),
        theirs.InvalidResponse("Protocol Error: b'x'"),
        ConnectionRefusedError(111, "Connection refused"),
        ConnectionResetError(104, "Connection reset by peer"),
        BrokenPipeError(),
        socket.gaierror(-2, "Name or service not known"),
        TimeoutError(),
        asyncio.IncompleteReadError(b"", 5),
        OSError("MOVED here"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_anything_else_is_a_lost_connection(error: Exception) -> None:
    """Whose text is never empty, and never read for a code where the server did not speak."""
    translated = translate(error)

    assert isinstance(translated, ConnectionLost)
    assert (str(error) or type(error).__name__) == str(translated)
    assert code_of(error) is None


@pytest.mark.parametrize("error", [ServerError("OOM", "no memory"), ConnectionLost("gone"), SetupError("wrong"), DecodeError("no")])
def test_our_own_errors_stay_as_they_are(error: Exception) -> None:
    """Translating twice changes nothing."""
    assert error is translate(error)


@pytest.mark.parametrize("error", [theirs.ResponseError("x" * 10_000), theirs.ConnectionError("x" * 10_000), OSError("x" * 10_000)])
def test_a_long_text_is_capped(error: Exception) -> None:
    """It ends in the log."""
    text = str(translate(error))

    assert 300 == len(text)
    assert text.endswith("…")


def test_the_sets_of_codes_do_not_overlap() -> None:
    """What passes by itself, and what must be made again, are two things."""
    assert not WILL_PASS & GROUP_GONE
