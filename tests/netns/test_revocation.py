# SPDX-License-Identifier: MIT
"""
Certificates that were good and are so no more: revoked, superseded, expired, before and in a session.

    alice <== pings, hundred a second ==> bob       carol: her certificate's days are numbered
      ^                                   ^
      +------------ sessions -------------+-------- carol

alice and bob have a copy of the revocation list each, so that a test decides who knows.
"""

import os
import re
import shutil
import signal

import pytest

from lab import Authority, Lab, ping, wait_for
from strangers import House, Watch

SECONDS = 3  # within which a reload must have ended what a list revokes


@pytest.fixture(scope="module")
def whole_house(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("revocation"))
    authority = Authority("home", os.path.join(folder, "ca"))
    lists = {name: os.path.join(folder, name + ".crl") for name in ("alice", "bob")}
    for path in lists.values():
        shutil.copy(authority.crl, path)
    made = House(Lab(), folder, authority=authority,
                 each={name: {"Network": {"CRL": path}} for name, path in lists.items()})
    made.lists = lists
    yield made
    made.close()


def revoke(house, name):
    """The CA's list names it; nobody knows yet. Gives the list's number."""
    return int(re.search(r"list number (\d+)", house.authority.run("revoke", name))[1])


def hand_out(house, *daemons):
    """The CA's list to those nodes."""
    for daemon in daemons or (house.alice, house.bob):
        shutil.copy(house.authority.crl, house.lists[daemon.name])
        daemon.ask("reload")


def tenant(house, name, certificate, **options):
    """A daemon on a machine of its own, not started.

    The members go on looking for who was there once; on one machine for all they would find the
    next tenant, and what these refuse each other would come between.
    """
    machine, = house.lab.internet(name)
    return house.daemon(name, certificate, machine=machine, **options)


def member(house, name):
    """One with a certificate that `ca issue` made just now."""
    return tenant(house, name, house.authority.issue(name, fresh=True))


def revoked(name, number):
    return rf"the certificate of '{name}' is revoked \(list number {number}\)"


def test_revoked_before_it_connects(house):
    odd = member(house, "revoked-early")
    hand_out_number = revoke(house, odd.name)
    hand_out(house)
    at = house.alice.log_size()
    told = "the peer refused our certificate: it is revoked"
    with house.counts("refused", "revoked"), house.counts("dial_refused", "revoked"), \
            house.dialling(odd.name, machine=odd.machine):
        odd.start()
        house.alice.wait_log(f"control: refused {odd.machine.ip4}:[0-9]+: " +
                             revoked(odd.name, "[0-9]+"), position=at)
        odd.wait_log(f"warn  peer alice: closed by the peer: revoked: {told}")
        house.alice.wait_log(f"warn  peer {odd.name} at .*: " + revoked(odd.name, hand_out_number),
                             10, position=at)
        odd.wait_log(f"control: refused {house.alice.machine.ip4}:[0-9]+: {told}", 10)
        assert house.counter("closed_by_peer", "revoked", daemon=odd) >= 1
        assert told in odd.peer("alice")["last_error"]
    odd.stop()


def test_a_node_that_knows_its_own_revocation_says_so(house):
    odd = member(house, "revoked-self")
    number = revoke(house, odd.name)
    odd.sections["Network"]["CRL"] = house.authority.crl
    odd.start()
    odd.wait_log("error our own certificate: " + revoked(odd.name, number))


def test_revoked_in_a_session(house):
    """alice reloads by command, bob by SIGHUP; who has not yet heard goes on."""
    carol = tenant(house, "carol",
                   house.authority.issue("carol", "--address", "10.7.0.30/24", fresh=True),
                   peers=("alice", "bob"))
    carol.start()
    carol.wait_up("alice", "bob")
    house.lab.wait_mesh(house.alice, carol)
    assert ping(carol, house.alice.ip4, count=10).lost == 0
    assert ping(carol, house.bob.ip4, count=10).lost == 0
    number = revoke(house, "carol")
    reason = revoked("carol", number)

    for knows, ignorant in ((house.alice, house.bob), (house.bob, None)):
        at, carol_at = knows.log_size(), carol.log_size()
        with house.counts("closed_by_us", "revoked", daemon=knows), \
                house.counts("closed_by_peer", "revoked", daemon=carol):
            if ignorant:
                hand_out(house, knows)
            else:
                shutil.copy(house.authority.crl, house.lists[knows.name])
                knows.signal(signal.SIGHUP)
                knows.wait_log("reloaded", SECONDS, at)
            knows.wait_log(f"warn  peer carol: closed by us: revoked: {reason}", SECONDS, at)
            carol.wait_log(f"warn  peer {knows.name}: closed by the peer: revoked: {reason}",
                           SECONDS, carol_at)
        wait_for(lambda: not carol.is_up(knows) and not knows.is_up(carol), SECONDS,
                 "the session's end")
        assert re.search(reason, knows.peer("carol")["last_error"])
        assert "revoked" in carol.peer(knows)["last_error"]
        assert knows.peer("carol")["session"] is None
        assert ping(carol, knows.ip4, count=5, deadline=0.3).received == 0
        if ignorant:
            assert ping(carol, ignorant.ip4, count=10).lost == 0

    # the same key under a new serial is the same key
    certificate, key = carol.sections["Node"]["Certificate"], carol.sections["Node"]["PrivateKey"]
    house.authority.run("issue", "carol", "--key", key, "--out", os.path.dirname(certificate),
                        "--force",
                        "--address", "10.7.0.30/24")
    at = carol.log_size()
    with house.counts("refused", "revoked"):
        carol.ask("reload")
    assert not house.alice.is_up(carol)

    # a new key is a new chance
    certificate, key = house.authority.issue("carol", "--address", "10.7.0.30/24", fresh=True)
    carol.configure("Node", Certificate=certificate, PrivateKey=key)
    carol.ask("reload")
    house.lab.wait_mesh(house.alice, carol, timeout=5)
    house.lab.wait_mesh(house.bob, carol, timeout=5)
    assert ping(carol, house.alice.ip4, count=10).lost == 0
    assert ping(house.bob, carol.ip4, count=10).lost == 0
    carol.stop()


def test_a_newer_certificate_supersedes(house):
    """Of two nodes with one name the one with the newer notBefore stays, whoever comes last."""
    eve, = house.lab.internet("eve")
    old = tenant(house, "dave", house.forge.make("dave", begin=-7200))
    os.mkdir(house.forge.path("new"))
    newer = type(house.forge)(house.forge.path("new"), house.authority)
    new = house.daemon("dave", newer.make("dave", begin=-3600), machine=eve)
    old.start()
    house.lab.wait_mesh(house.alice, old)

    at = house.alice.log_size()
    text = "a newer certificate has this name"
    with house.counts("closed_by_us", "superseded"), house.counts("closed_by_peer", "superseded",
                                                                  daemon=old):
        new.start()
        new.wait_up("alice")
        house.alice.wait_log(f"warn  peer dave: closed by us: superseded: {text}", position=at)
        old.wait_log(f"warn  peer alice: closed by the peer: superseded: {text}")
    wait_for(lambda: not old.is_up("alice"), SECONDS)
    assert "superseded" in old.peer("alice")["last_error"]

    at = house.alice.log_size()
    with house.counts("closed_by_us", "superseded"), house.counts("closed_by_peer", "superseded",
                                                                  daemon=old):
        def knocked():
            old.ask("reload")  # forgets its back-off
            return re.search(rf"(warn |debug) refused dave: {text} \(superseded\)",
                             house.alice.log(at))

        wait_for(knocked, 8, "old dave to knock in vain", interval=0.3)
    assert new.is_up("alice") and house.alice.is_up("dave") and not old.is_up("alice")
    assert house.alice.peer("dave")["path"]["remote"].startswith(eve.ip4 + ":")


def test_a_renewed_certificate_replaces_its_own_session(house):
    """The usual renewal: reload with a newer certificate, restart, and the peer takes the newer one."""
    first, second = house.forge.make("erin", begin=-7200), None
    os.mkdir(house.forge.path("renewed"))
    second = type(house.forge)(house.forge.path("renewed"), house.authority).make("erin",
                                                                                  begin=-3600)
    erin = tenant(house, "erin", first)
    erin.start()
    house.lab.wait_mesh(house.alice, erin)
    serial = house.alice.peer("erin")["certificate"]["fingerprint"]
    erin.stop()
    erin.configure("Node", Certificate=second[0], PrivateKey=second[1])
    erin.start()
    house.lab.wait_mesh(house.alice, erin)
    assert house.alice.peer("erin")["certificate"]["fingerprint"] != serial
    assert "superseded" not in erin.log()


def test_a_certificate_that_expires_ends_its_session(house):
    odd = tenant(house, "short",
                 house.authority.issue("short", "--valid", "8s", "--address", "10.7.0.31/24",
                                       fresh=True))
    at = house.alice.log_size()
    odd.start()
    house.lab.wait_mesh(house.alice, odd)
    assert ping(odd, house.alice.ip4, count=3).lost == 0
    reason = "the certificate of 'short' expired on"
    with house.counts("closed_by_us", "expired"), house.counts("closed_by_peer", "expired",
                                                               daemon=odd):
        # 8 s, and what the check needs, which runs every 5 s
        house.alice.wait_log(f"warn  peer short: closed by us: expired: {reason}", 16, at)
        odd.wait_log(f"warn  peer alice: closed by the peer: expired: {reason}", SECONDS)
    wait_for(lambda: not odd.is_up("alice") and not house.alice.is_up("short"), SECONDS)
    assert ping(odd, house.alice.ip4, count=3, deadline=0.3).received == 0
    assert re.search(reason, house.alice.peer("short")["last_error"])
    # and it stays out
    at = house.alice.log_size()
    with house.counts("refused", "expired"):
        odd.ask("reload")
    assert not house.alice.is_up("short")


def test_a_stale_list_warns_and_stops_nobody(house):
    house.authority.run("crl", "--next-update", "1s")
    at = house.alice.log_size()

    def warned():
        hand_out(house, house.alice)
        return "revocation list is out of date" in house.alice.log(at)

    wait_for(warned, 5, "the warning", interval=0.2)
    assert house.alice.is_up("bob")
    house.authority.run("crl")
    hand_out(house, house.alice)


def test_a_list_of_another_ca_changes_nothing(house):
    other = Authority.get("other")
    kept = house.lists["alice"] + ".kept"
    shutil.copy(house.lists["alice"], kept)
    shutil.copy(other.crl, house.lists["alice"])
    done = house.alice.cli("reload")
    assert done.returncode != 0
    assert "the revocation list is not signed by a CA of this network" in done.stderr
    os.rename(kept, house.lists["alice"])
    assert house.alice.cli("reload").returncode == 0


@pytest.mark.parametrize("key", ["same", "new"])
def test_a_certificate_renewed_by_reload_is_used_at_once(house, key):
    """A session must not go on under the old one until that expires. The change itself costs no packet."""
    name = "fay-" + key
    address = ("--address", {"same": "10.7.0.32/24", "new": "10.7.0.33/24"}[key])
    certificate, private = house.authority.issue(name, "--valid", "1h", *address, fresh=True)
    fay = tenant(house, name, (certificate, private))
    fay.start()
    house.lab.wait_mesh(house.alice, fay)
    before = house.alice.peer(name)["certificate"]
    if key == "same":
        house.authority.run("issue", name, "--key", private, "--out", os.path.dirname(certificate),
                            "--force",
                            "--valid", "2h", *address)
    else:
        certificate, private = house.authority.issue(name, "--valid", "2h", *address, fresh=True)
        fay.configure("Node", Certificate=certificate, PrivateKey=private)
    watch = Watch(house.alice, fay.ip4)
    fay.ask("reload")
    wait_for(lambda: house.alice.peer(name)["certificate"]["not_after"] > before["not_after"] + 3000, 20,
             "the renewed certificate")
    assert (house.alice.peer(name)["certificate"]["fingerprint"] == before["fingerprint"]) == (key == "same")
    house.lab.wait_mesh(house.alice, fay)
    try:
        if key == "same":
            watch.check()
    finally:
        watch.stop()
    assert ping(fay, house.alice.ip4, count=20).lost == 0
    fay.stop()
