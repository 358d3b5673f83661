"""What the client library raises, in our words."""

from __future__ import annotations

import asyncio
import socket

import pytest
import redis.exceptions as theirs

from streamworker.errors import ConnectionLost, DecodeError, ServerError, SetupError
from streamworker.streams.faults import Remedy, answered, code_of, concerns_all, remedy_for, sentence, translate


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
        (theirs.MasterDownError("Link with MASTER is down and replica-serve-stale-data is set to 'no'."), "MASTERDOWN"),
        (theirs.ClusterDownError("Hash slot not served"), "CLUSTERDOWN"),
        (theirs.ClusterCrossSlotError("Keys in request don't hash to the same slot"), "CROSSSLOT"),
        (theirs.TryAgainError("Multiple keys request during rehashing of slot"), "TRYAGAIN"),
        (theirs.MovedError("866 127.0.0.1:7001"), "MOVED"),
        (theirs.AskError("866 127.0.0.1:7001"), "ASK"),
        (theirs.AuthenticationError("invalid username-password pair or user is disabled."), "WRONGPASS"),
        (theirs.AuthenticationError("invalid password"), "WRONGPASS"),
        (theirs.AuthenticationError("AUTH <password> called without any password configured for the default user."), "NOPASSWORD"),
        (theirs.ResponseError("DB index is out of range"), "NODATABASE"),
        (theirs.ResponseError("The user executing the script can't run this command or subcommand script: 3c44"), "NOPERM"),
        (theirs.ResponseError("ACL failure in script: No permissions to access a key script: on @user_script:1."), "NOPERM"),
        (theirs.ExecAbortError("EXECABORT Transaction discarded"), "EXECABORT"),
    ],
)
def test_an_answer_of_the_server_keeps_its_code(error: Exception, code: str) -> None:
    """Wherever it stands in the text, and where the library has cut it off."""
    translated = translate(error)

    assert isinstance(translated, ServerError)
    assert code == translated.code
    assert (str(error) or type(error).__name__) == str(translated)


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


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            theirs.ResponseError(f"WRONGTYPE wrong kind of value script: {'0a' * 20}, on @user_script:34."),
            "WRONGTYPE wrong kind of value",
        ),
        (theirs.ResponseError(f"Error running script (call to f_{'0a' * 20}): @user_script:7: WRONGTYPE no"), "WRONGTYPE no"),
        (
            theirs.ConnectionError("Error 111 connecting to 127.0.0.1:1. Connect call failed ('127.0.0.1', 1)."),
            "connection refused (127.0.0.1:1)",
        ),
    ],
)
def test_what_tells_a_user_nothing_is_left_out(error: Exception, text: str) -> None:
    """Where in a script it was, and the address said twice."""
    assert text == str(translate(error))


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("LOADING Redis is loading the dataset in memory", Remedy.CALL_AGAIN),
        ("ERR Error running script: @user_script: 5: -OOM command not allowed", Remedy.CALL_AGAIN),
        ("BUSY Redis is busy running a script", Remedy.CALL_AGAIN),
        ("READONLY You can't write against a read only replica. script: 1, on @user_script:3.", Remedy.RECONNECT),
        ("ERR max number of clients reached", Remedy.RECONNECT),
        ("UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)", Remedy.RECONNECT),
        ("UNBLOCKED the stream key no longer exists", Remedy.MAKE_GROUP),
        ("NOGROUP No such key 'orders' or consumer group 'billing'", Remedy.MAKE_GROUP),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", Remedy.CONFIGURE),
        ("NOPERM this user has no permissions", Remedy.CONFIGURE),
        ("MOVED 866 127.0.0.1:7001", Remedy.CONFIGURE),
        ("ERR Protocol error: invalid bulk length", Remedy.CONFIGURE),
        ("ERR unknown command 'XNACK'", Remedy.CONFIGURE),
    ],
)
def test_every_error_has_a_remedy(text: str, remedy: Remedy) -> None:
    """By its code, wherever that stands; what is not known is a matter of configuration."""
    assert remedy is remedy_for(answered(text))


def test_a_full_server_still_hands_out_entries() -> None:
    """So it concerns only those who want to write; what stops reading concerns all."""
    assert not concerns_all(answered("OOM command not allowed when used memory > 'maxmemory'."))
    assert not concerns_all(answered("NOGROUP No such key"))
    assert concerns_all(answered("LOADING Redis is loading"))
    assert concerns_all(answered("READONLY You can't write against a read only replica."))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ServerError("WRONGPASS", "invalid username-password pair or user is disabled."), "the file that it is read from"),
        (ServerError("NOPERM", "no permissions"), "streamworker acl"),
        (ServerError("ERR", "unknown command"), "unknown command"),
        (ConnectionLost("[Errno 111] Connect call failed ('127.0.0.1', 49152)"), "the connection to Redis was lost"),
    ],
)
def test_a_sentence_for_the_log_names_the_repair(error: ServerError | ConnectionLost, words: str) -> None:
    """And no part that changes from one try to the next."""
    assert words in sentence(error)
    assert "49152" not in sentence(error)
