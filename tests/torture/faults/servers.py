"""What happens to the server: killed, emptied, robbed of keys and groups, full, paused, its clients cut off, its rights withdrawn."""

from __future__ import annotations

import time

from tests.torture.faults.base import Fault, Strike, again_and_again, one_of
from tests.torture.load import GROUP, PLAIN, STREAM
from tests.torture.scene import DEAD, DUE, PARKED, RETRY, USER, Scene

FAILING = {**PLAIN, "fails-once": 15.0, "always-fails": 10.0, "reject": 10.0}


def kill_the_server(scene: Scene) -> None:
    """SIGKILL, a while of nothing, and back with its append-only file."""
    with scene.hit("server killed"):
        scene.server.kill()
        scene.pause(scene.random.uniform(0.05, 1.5) * scene.lease)
        scene.server.restart()


def restart_empty(scene: Scene) -> None:
    """SIGKILL, and back without its data: what it had is gone by definition, what comes afterwards is not."""
    with scene.hit("server emptied", voids=True):
        scene.server.kill()
        scene.pause(scene.random.uniform(0.05, 0.5) * scene.lease)
        scene.server.restart()
        scene.forgotten.append(time.monotonic())


def flush_all(scene: Scene) -> None:
    """FLUSHALL."""
    with scene.hit("FLUSHALL", voids=True):
        scene.admin.flushall()
        scene.forgotten.append(time.monotonic())


def delete_the_stream(scene: Scene) -> None:
    """DEL: the entries are gone, and the group with them."""
    with scene.hit("DEL", voids=True):
        scene.admin.delete(STREAM)
        scene.forgotten.append(time.monotonic())


def destroy_the_group(scene: Scene) -> None:
    """XGROUP DESTROY: the entries are all there, who has which is not."""
    with scene.hit("XGROUP DESTROY", voids=True):
        scene.admin.xgroup_destroy(STREAM, GROUP)


def destroy_the_group_of_retries(scene: Scene) -> None:
    """XGROUP DESTROY on the retry stream."""
    with scene.hit("XGROUP DESTROY", voids=True):
        scene.admin.xgroup_destroy(RETRY, GROUP)


def kill_clients(scene: Scene) -> None:
    """CLIENT KILL TYPE normal: every connection but ours."""
    with scene.hit("CLIENT KILL", fires=0, heals=False):
        scene.fired += int(scene.admin.client_kill_filter(_type="normal", skipme=True) > 0)


def kill_clients_in_a_loop(scene: Scene) -> None:
    """Five times a second, so that hardly a command gets through undisturbed."""
    again_and_again(kill_clients, 0.2, least=10)(scene)
    scene.healed.append(time.monotonic())


def pause_clients(scene: Scene) -> None:
    """CLIENT PAUSE for longer than a lease, of all commands or of writes only."""
    seconds = scene.lease * scene.random.uniform(1.1, 1.6)
    with scene.hit("CLIENT PAUSE"):
        scene.admin.client_pause(round(seconds * 1000), all=scene.random.random() < 0.5)
        scene.pause(seconds)


def flush_scripts(scene: Scene) -> None:
    """SCRIPT FLUSH: costs one more round trip, and nothing else."""
    scene.admin.script_flush()
    scene.fired += 1


def fill_the_memory(scene: Scene) -> None:
    """The server is full, then it is not."""
    with scene.hit("out of memory"):
        scene.admin.config_set("maxmemory", 1)
        scene.pause(scene.lease * scene.random.uniform(0.8, 1.5))
        scene.admin.config_set("maxmemory", 0)


def withdraw_rights(scene: Scene) -> None:
    """The workers' user may do nothing, then all again."""
    with scene.hit("rights withdrawn"):
        scene.admin.execute_command("ACL", "SETUSER", USER, "-@all")
        scene.pause(scene.lease * scene.random.uniform(0.8, 1.5))
        scene.admin.execute_command("ACL", "SETUSER", USER, "+@all")


def switch_the_user_off(scene: Scene) -> None:
    """The workers' user is off and its connections are closed, then it is on again."""
    with scene.hit("user switched off"):
        scene.admin.execute_command("ACL", "SETUSER", USER, "off")
        scene.admin.execute_command("CLIENT", "KILL", "USER", USER)
        scene.pause(scene.lease * scene.random.uniform(0.5, 1.2))
        scene.admin.execute_command("ACL", "SETUSER", USER, "on")


def wrong_type(scene: Scene, key: str) -> None:
    """Somebody moves a key of ours away and puts a string in its place; later it is put right."""
    aside = f"{key}:aside"
    with scene.hit(f"wrong type of {key}"):
        with scene.admin.pipeline() as pipe:
            had = scene.admin.exists(key)
            if had:
                pipe.rename(key, aside)
            pipe.set(key, "not what you expect").execute()
        scene.pause(scene.lease * scene.random.uniform(0.8, 1.5))
        with scene.admin.pipeline() as pipe:
            pipe.delete(key)
            if had:
                pipe.rename(aside, key)
            pipe.execute()


def of_wrong_type(key: str) -> Strike:
    """The same for one key."""
    return lambda scene: wrong_type(scene, key)


FAULTS = (
    Fault(
        "kill -9 of the server with AOF",
        again_and_again(kill_the_server, 0.6, least=3),
        durable=True,
        events=one_of("reading.failing"),
    ),
    Fault("server restarted empty", again_and_again(restart_empty, 0.8), events=one_of("group.made_again")),
    Fault("FLUSHALL", again_and_again(flush_all, 0.7, least=3), events=one_of("group.made_again")),
    Fault("DEL of the stream", again_and_again(delete_the_stream, 0.7, least=3), events=one_of("group.made_again")),
    Fault("XGROUP DESTROY", again_and_again(destroy_the_group, 0.7, least=3), events=one_of("group.made_again")),
    Fault("XGROUP DESTROY of retries", again_and_again(destroy_the_group_of_retries, 0.4, least=3), mix=FAILING),
    Fault("CLIENT KILL in a loop", kill_clients_in_a_loop, events=one_of("reading.failing")),
    Fault("CLIENT PAUSE", again_and_again(pause_clients, 0.5), events=one_of("leases.failing", "lease.lost")),
    Fault("SCRIPT FLUSH in a loop", again_and_again(flush_scripts, 0.02, least=50)),
    Fault(
        "maxmemory",
        again_and_again(fill_the_memory, 0.5),
        mix=FAILING,
        events=one_of("retry.failing", "dead_letter.failing", "commit.failing", "promoting.failing"),
    ),
    Fault(
        "wrong type: due",
        again_and_again(of_wrong_type(DUE), 0.4),
        mix=FAILING,
        events=one_of("promoting.failing", "retry.failing"),
    ),
    Fault(
        "wrong type: parked",
        again_and_again(of_wrong_type(PARKED), 0.4),
        mix=FAILING,
        events=one_of("promoting.failing", "retry.failing"),
    ),
    Fault("wrong type: retry", again_and_again(of_wrong_type(RETRY), 0.4), mix=FAILING, events=one_of("stream.failing")),
    Fault("wrong type: dlq", again_and_again(of_wrong_type(DEAD), 0.4), mix=FAILING, events=one_of("dead_letter.failing")),
    Fault("rights withdrawn", again_and_again(withdraw_rights, 0.5), events=one_of("reading.failing", "stream.failing")),
    Fault("user switched off", again_and_again(switch_the_user_off, 0.5), events=one_of("reading.failing")),
)
