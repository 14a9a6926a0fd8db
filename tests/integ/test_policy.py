"""Source policies: what a build may use, and what it gets in its stead."""
import json

import pytest


@pytest.fixture
def policy(folder):
    def write(*rules):
        path = folder / "policy.json"
        path.write_text(json.dumps({"version": 1, "rules": list(rules)}))
        return f"--source-policy-file={path}"
    return write


def rule(action, identifier, match="WILDCARD", to=None):
    r = {"action": action, "selector": {"identifier": identifier, "match_type": match}}
    return dict(r, updates={"identifier": to}) if to else r


DOCKERFILE = "ARG BASE\nFROM ${BASE}\nCOPY a.txt /a.txt\n"


def test_what_is_denied_is_not_asked_for(daemon, context, policy):
    """No registry is there: it would be another error."""
    path = context("FROM registry.invalid/secret:1\n", {"a.txt": "a"})
    r = daemon.build(path, policy(rule("DENY", "docker-image://registry.invalid/*")), code=1)
    assert 'source "docker-image://registry.invalid/secret:1" denied by policy' in r.out


def test_the_last_rule_that_fits_counts(daemon, context, registry, policy):
    path = context(DOCKERFILE, {"a.txt": "a"})
    host = registry.base.split("/")[0]
    daemon.build(path, policy(rule("DENY", "docker-image://*"), rule("ALLOW", f"docker-image://{host}/*")), args={"BASE": registry.base})


def test_an_image_in_anothers_stead(daemon, context, registry, policy, folder):
    """The name in the Dockerfile is nowhere to be had; a group of the expression goes into the new one."""
    path = context(DOCKERFILE, {"a.txt": "a"})
    host, _, rest = registry.base.partition("/")
    convert = rule("CONVERT", r"^docker-image://registry\.invalid/([a-z/]+):.*$", "REGEX", f"docker-image://{host}/$1:{rest.rpartition(':')[2] or 'latest'}")
    name = rest.rpartition(":")[0] or rest
    daemon.build(path, policy(convert), f"--output=type=local,dest={folder}/out", args={"BASE": f"registry.invalid/{name}:nowhere"})
    assert (folder / "out/bin/sh").is_symlink() and (folder / "out/a.txt").read_text() == "a"


def test_rules_that_chase_each_other_end(daemon, context, policy):
    path = context("FROM registry.invalid/a:1\n", {})
    a, b = "docker-image://registry.invalid/a:1", "docker-image://registry.invalid/b:1"
    r = daemon.build(path, policy(rule("CONVERT", a, "EXACT", b), rule("CONVERT", b, "EXACT", a)), code=1)
    assert "too many" in r.out
