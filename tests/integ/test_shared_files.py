"""COPY makes hard links to a context's files (docs/adr/0006): nobody may see that in what comes out, and nothing written
afterwards, by a step or by the next sync, may reach the other name."""
import os
import time

DOCKERFILE = """\
ARG BASE=scratch
FROM ${BASE} AS a
WORKDIR /app
COPY . .
COPY d/two twice
RUN echo changed > one && chmod 600 d/two && rm d/three && cat one d/two twice > seen

FROM ${BASE} AS b
COPY . /app
COPY one /app/one
RUN cat /app/one /app/d/two /app/d/three > /seen; cp -a /app /copy; stat -c '%h %n' /copy/one /copy/d/two /copy/d/three > /names

FROM scratch
COPY --from=a /app /a
COPY --from=b /app /b
COPY --from=b /seen /names /
"""
FILES = {"one": "1\n", "d/two": "2\n", "d/three": "3\n"}


def layers(daemon):
    return [p for p in (daemon.root / "slipway/snapshots").glob("*/fs") if p.is_dir()]


def test_neither_name_changes_the_other(daemon, context, registry, folder):
    args = {"BASE": registry.base}
    path = context(DOCKERFILE, FILES)
    daemon.build(path, f"--output=type=local,dest={folder}/out", args=args)
    out = folder / "out"
    assert (out / "a/seen").read_text() == "changed\n2\n2\n"
    assert (out / "seen").read_text() == "1\n2\n3\n"
    assert (out / "names").read_text() == "1 /copy/one\n1 /copy/d/two\n1 /copy/d/three\n"
    assert (out / "b/one").read_text() == "1\n" and (out / "b/d/two").stat().st_mode & 0o777 == 0o644
    assert not (out / "a/d/three").exists() and (out / "a/d/two").stat().st_mode & 0o777 == 0o600
    # the next sync replaces the context's files; what was built from the old ones stays
    old = {p: p.read_bytes() for l in layers(daemon) for p in l.rglob("*") if p.name in ("one", "two", "three") and p.is_file()}
    shared = [p for p in old if p.stat().st_nlink > 1]
    assert shared, "nothing was shared: this test shows nothing"
    time.sleep(0.05)
    (path / "one").write_text("x\n")
    os.chmod(path / "d/two", 0o755)
    daemon.build(path, f"--output=type=local,dest={folder}/out2", args=args)
    assert (folder / "out2/seen").read_text() == "x\n2\n3\n"
    assert (folder / "out2/b/d/two").stat().st_mode & 0o777 == 0o755
    changed = [p for p, was in old.items() if p.exists() and p.read_bytes() != was]
    assert len(changed) <= 1, changed  # the mirror of the context itself
