package interop

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	gatewayapi "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/pkg/errors"
	"github.com/tonistiigi/fsutil"
)

func TestInfoAndWorkers(t *testing.T) {
	ctx, c := connect(t)
	info, err := c.Info(ctx)
	must(t, err)
	if info.BuildkitVersion.Version == "" || info.BuildkitVersion.Package == "" {
		t.Fatalf("no version: %+v", info.BuildkitVersion)
	}
	workers, err := c.ListWorkers(ctx)
	must(t, err)
	equal(t, "workers", len(workers), 1)
	if len(workers[0].Platforms) == 0 || workers[0].ID == "" || workers[0].Labels["org.mobyproject.buildkit.worker.executor"] == "" {
		t.Fatalf("the worker says too little: %+v", workers[0])
	}
}

func TestFilesAndLocalExport(t *testing.T) {
	ctx, c := connect(t)
	src := folder(t, "a.txt", "one", "dir/b.txt", "two", "dir/skip.log", "no")
	st := llb.Scratch().
		File(llb.Copy(llb.Local("src", llb.ExcludePatterns([]string{"**/*.log"})), "/", "/in/")).
		File(llb.Mkfile("/made", 0o600, []byte("three"), llb.WithUIDGID(0, 0))).
		File(llb.Rm("/in/a.txt"))
	out := t.TempDir()
	_, _, err := solve(t, ctx, c, st, client.SolveOpt{
		LocalMounts: map[string]fsutil.FS{"src": src},
		Exports:     []client.ExportEntry{{Type: client.ExporterLocal, OutputDir: out}},
	})
	must(t, err)
	equal(t, "dir/b.txt", read(t, out, "in/dir/b.txt"), "two")
	equal(t, "made", read(t, out, "made"), "three")
	for _, gone := range []string{"in/a.txt", "in/dir/skip.log"} {
		if _, err := os.Stat(filepath.Join(out, gone)); !os.IsNotExist(err) {
			t.Fatalf("%s should not be there: %v", gone, err)
		}
	}
}

func TestRunMountsSecretAndCache(t *testing.T) {
	ctx, c := connect(t)
	root, mounts := shell(t)
	nonce := identity.NewID()
	step := func(n int) llb.State {
		return root.Run(sh("busybox cat /run/secrets/word > /out/word; echo %s%d >> /cache/lines; busybox cat /cache/lines > /out/lines; echo said", nonce, n),
			llb.AddSecret("/run/secrets/word", llb.SecretID("word")),
			llb.AddMount("/cache", llb.Scratch(), llb.AsPersistentCacheDir("interop-"+nonce, llb.CacheMountShared)),
			llb.WithCustomNamef("step %d", n)).AddMount("/out", llb.Scratch())
	}
	for n := 1; n <= 2; n++ {
		out := t.TempDir()
		_, s, err := solve(t, ctx, c, step(n), client.SolveOpt{
			LocalMounts: mounts,
			Session:     []session.Attachable{secretsprovider.FromMap(map[string][]byte{"word": []byte("hush")})},
			Exports:     []client.ExportEntry{{Type: client.ExporterLocal, OutputDir: out}},
		})
		must(t, err)
		equal(t, "secret", read(t, out, "word"), "hush")
		equal(t, "lines of the cache mount", strings.Count(read(t, out, "lines"), nonce), n)
		equal(t, "log", s.logs.String(), "said\n")
		if v := s.vertexes[fmt.Sprintf("step %d", n)]; v == nil || v.Started == nil || v.Completed == nil || v.Cached {
			t.Fatalf("step %d: %+v", n, v)
		}
	}
	_, s, err := solve(t, ctx, c, step(2), client.SolveOpt{LocalMounts: mounts})
	must(t, err)
	if v := s.vertexes["step 2"]; v == nil || !v.Cached {
		t.Fatalf("the second time is not cached: %+v", v)
	}
}

func TestFailedStepSaysWhere(t *testing.T) {
	ctx, c := connect(t)
	root, mounts := shell(t)
	text := "first\nthe failing line\n"
	src := llb.NewSourceMap(nil, "recipe", "Recipe", []byte(text))
	st := root.Run(sh("echo to the log; exit 42"), src.Location([]*pb.Range{{Start: &pb.Position{Line: 2}, End: &pb.Position{Line: 2}}})).Root()
	_, s, err := solve(t, ctx, c, st, client.SolveOpt{LocalMounts: mounts})
	if err == nil {
		t.Fatal("no error")
	}
	var exit *gatewayapi.ExitError
	if !errors.As(err, &exit) || exit.ExitCode != 42 {
		t.Fatalf("no exit code 42 in %v", err)
	}
	sources := errdefs.Sources(err)
	equal(t, "sources", len(sources), 1)
	equal(t, "source text", string(sources[0].Info.Data), text)
	equal(t, "line", sources[0].Ranges[0].Start.Line, 2)
	equal(t, "log", s.logs.String(), "to the log\n")
}

// What a debugger on failure (buildx debug) needs: the operation and its mounts as they were when the step failed.
func TestFailedStepCanBeEntered(t *testing.T) {
	ctx, c := connect(t)
	root, mounts := shell(t)
	_, err := c.Build(ctx, client.SolveOpt{LocalMounts: mounts}, "interop", func(ctx context.Context, g gateway.Client) (*gateway.Result, error) {
		def, err := root.Run(sh("echo half > /half; exit 3")).Root().Marshal(ctx, llb.LinuxAmd64)
		must(t, err)
		_, err = g.Solve(ctx, gateway.SolveRequest{Definition: def.ToPB(), Evaluate: true})
		var se *errdefs.SolveError
		if !errors.As(err, &se) || se.Op.GetExec() == nil || len(se.MountIDs) == 0 {
			t.Fatalf("no operation with mounts in %v", err)
		}
		ctr, err := g.NewContainer(ctx, gateway.NewContainerRequest{Mounts: []gateway.Mount{{Dest: "/", MountType: pb.MountType_BIND, ResultID: se.MountIDs[0]}}})
		must(t, err)
		defer ctr.Release(ctx)
		var out collect
		p, err := ctr.Start(ctx, gateway.StartRequest{Args: []string{"/bin/busybox", "cat", "/half"}, Cwd: "/", Stdout: &out})
		must(t, err)
		must(t, p.Wait())
		equal(t, "file of the failed step", out.String(), "half\n")
		return gateway.NewResult(), nil
	}, nil)
	must(t, err)
}

func TestCancelEndsTheStep(t *testing.T) {
	ctx, c := connect(t)
	root, mounts := shell(t)
	ctx, cancel := context.WithCancel(ctx)
	st := root.Run(sh("echo %s; busybox sleep 1000", identity.NewID())).Root()
	def, err := st.Marshal(ctx, llb.LinuxAmd64)
	must(t, err)
	ch := make(chan *client.SolveStatus)
	go func() {
		for status := range ch {
			if len(status.Logs) > 0 {
				cancel()
			}
		}
	}()
	start := time.Now()
	if _, err = c.Solve(ctx, def, client.SolveOpt{LocalMounts: mounts}, ch); err == nil || ctx.Err() == nil {
		t.Fatalf("not cancelled: %v", err)
	}
	if d := time.Since(start); d > 30*time.Second {
		t.Fatalf("cancelling took %s", d)
	}
}

func TestGatewayReferences(t *testing.T) {
	ctx, c := connect(t)
	src := folder(t, "hello.txt", "hello, gateway", "d/x", "1", "d/y", "22")
	_, err := c.Build(ctx, client.SolveOpt{LocalMounts: map[string]fsutil.FS{"src": src}, FrontendAttrs: map[string]string{"color": "blue"}}, "interop",
		func(ctx context.Context, g gateway.Client) (*gateway.Result, error) {
			equal(t, "option", g.BuildOpts().Opts["color"], "blue")
			def, err := llb.Local("src", llb.SessionID(g.BuildOpts().SessionID)).Marshal(ctx)
			must(t, err)
			res, err := g.Solve(ctx, gateway.SolveRequest{Definition: def.ToPB(), Evaluate: true})
			must(t, err)
			ref, err := res.SingleRef()
			must(t, err)
			data, err := ref.ReadFile(ctx, gateway.ReadRequest{Filename: "hello.txt", Range: &gateway.FileRange{Offset: 7, Length: 4}})
			must(t, err)
			equal(t, "part of the file", string(data), "gate")
			stat, err := ref.StatFile(ctx, gateway.StatRequest{Path: "d/y"})
			must(t, err)
			equal(t, "size", stat.Size, 2)
			list, err := ref.ReadDir(ctx, gateway.ReadDirRequest{Path: "/d", IncludePattern: "x*"})
			must(t, err)
			equal(t, "files", len(list), 1)
			equal(t, "file", list[0].Path, "x")
			if _, err = ref.ReadFile(ctx, gateway.ReadRequest{Filename: "none"}); err == nil || !strings.Contains(err.Error(), "no such file") {
				t.Fatalf("a file that is not there: %v", err)
			}
			if _, err = ref.ReadFile(ctx, gateway.ReadRequest{Filename: "../../../../etc/hostname"}); err == nil {
				t.Fatal("left the root")
			}
			return res, nil
		}, nil)
	must(t, err)
}

type collect struct{ bytes.Buffer }

func (*collect) Close() error { return nil }

func TestGatewayContainer(t *testing.T) {
	ctx, c := connect(t)
	root, mounts := shell(t)
	_, err := c.Build(ctx, client.SolveOpt{LocalMounts: mounts}, "interop", func(ctx context.Context, g gateway.Client) (*gateway.Result, error) {
		def, err := root.Marshal(ctx, llb.LinuxAmd64)
		must(t, err)
		res, err := g.Solve(ctx, gateway.SolveRequest{Definition: def.ToPB(), Evaluate: true})
		must(t, err)
		ctr, err := g.NewContainer(ctx, gateway.NewContainerRequest{Mounts: []gateway.Mount{{Dest: "/", MountType: pb.MountType_BIND, Ref: res.Ref}}})
		must(t, err)
		defer ctr.Release(ctx)
		main, err := ctr.Start(ctx, gateway.StartRequest{Args: []string{"/bin/busybox", "sleep", "1000"}, Cwd: "/"})
		must(t, err)
		var out, complaints collect
		p, err := ctr.Start(ctx, gateway.StartRequest{
			Args: []string{"/bin/sh", "-c", "read line; echo \"<$line>\"; echo no >&2; exit 7"}, Env: []string{"PATH=/bin"}, Cwd: "/",
			Stdin: io.NopCloser(strings.NewReader("in\n")), Stdout: &out, Stderr: &complaints,
		})
		must(t, err)
		var exit *gatewayapi.ExitError
		if err := p.Wait(); !errors.As(err, &exit) || exit.ExitCode != 7 {
			t.Fatalf("exit code 7 expected: %v", err)
		}
		equal(t, "stdout", out.String(), "<in>\n")
		equal(t, "stderr", complaints.String(), "no\n")
		must(t, main.Signal(ctx, 9))
		if main.Wait() == nil {
			t.Fatal("killed and no error")
		}
		return res, nil
	}, nil)
	must(t, err)
}

func TestDockerfileFrontend(t *testing.T) {
	ctx, c := connect(t)
	dockerfile := "FROM scratch AS base\nCOPY greeting /g\nFROM base\nARG WHO=nobody\nLABEL who=$WHO\nMAINTAINER me\n"
	build := func() (*client.SolveResponse, *seen, []byte) {
		var tarball collect
		s, ch := watch()
		src := folder(t, "Dockerfile", dockerfile, "greeting", "hello")
		res, err := c.Solve(ctx, nil, client.SolveOpt{
			Frontend: "dockerfile.v0", FrontendAttrs: map[string]string{"build-arg:WHO": "all"},
			LocalMounts: map[string]fsutil.FS{"context": src, "dockerfile": src},
			Exports: []client.ExportEntry{{Type: client.ExporterOCI, Attrs: map[string]string{"name": "example.org/interop:1"},
				Output: func(map[string]string) (io.WriteCloser, error) { return &tarball, nil }}},
		}, ch)
		<-s.done
		must(t, err)
		return res, s, tarball.Bytes()
	}
	res, s, image := build()
	warned := false
	for _, w := range s.warnings {
		warned = warned || strings.HasPrefix(string(w.Short), "MaintainerDeprecated") && w.Range[0].Start.Line == 6
	}
	if !warned {
		t.Fatalf("no MaintainerDeprecated at line 6: %v", s.warnings)
	}
	files := untar(t, image)
	for name, data := range files {
		if dgst, ok := strings.CutPrefix(name, "blobs/sha256/"); ok && dgst != "" {
			equal(t, name, fmt.Sprintf("%x", sha256.Sum256(data)), dgst)
		}
	}
	var index struct{ Manifests []struct{ Digest string } }
	must(t, json.Unmarshal(files["index.json"], &index))
	equal(t, "digest of the answer", res.ExporterResponse["containerimage.digest"], index.Manifests[0].Digest)
	config := files["blobs/sha256/"+strings.TrimPrefix(res.ExporterResponse["containerimage.config.digest"], "sha256:")]
	if !bytes.Contains(config, []byte(`"who":"all"`)) {
		t.Fatalf("no label in the config: %s", config)
	}
	_, s, _ = build()
	if v := s.vertexes["[base 1/1] COPY greeting /g"]; v == nil || !v.Cached {
		t.Fatalf("COPY is not cached the second time: %+v", v)
	}
}

func untar(t *testing.T, data []byte) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return files
		}
		must(t, err)
		files[h.Name], err = io.ReadAll(r)
		must(t, err)
	}
}

func TestDockerfileErrorHasItsPlace(t *testing.T) {
	ctx, c := connect(t)
	src := folder(t, "Dockerfile", "FROM scratch\nCOPPY a b\n")
	s, ch := watch()
	_, err := c.Solve(ctx, nil, client.SolveOpt{Frontend: "dockerfile.v0", LocalMounts: map[string]fsutil.FS{"context": src, "dockerfile": src}}, ch)
	<-s.done
	if err == nil || !strings.Contains(err.Error(), "unknown instruction: COPPY (did you mean COPY?)") {
		t.Fatalf("%v", err)
	}
	sources := errdefs.Sources(err)
	if len(sources) != 1 || sources[0].Ranges[0].Start.Line != 2 {
		t.Fatalf("no place: %v", sources)
	}
}

func TestNamedContextOfInputs(t *testing.T) {
	ctx, c := connect(t)
	src := folder(t, "Dockerfile", "FROM scratch\nCOPY --from=extra /f /f\n")
	out := t.TempDir()
	extra := llb.Scratch().File(llb.Mkfile("/f", 0o644, []byte("from an input")))
	_, err := c.Solve(ctx, nil, client.SolveOpt{
		Frontend: "dockerfile.v0", FrontendAttrs: map[string]string{"context:extra": "input:extra"},
		FrontendInputs: map[string]llb.State{"extra": extra},
		LocalMounts:    map[string]fsutil.FS{"context": src, "dockerfile": src},
		Exports:        []client.ExportEntry{{Type: client.ExporterLocal, OutputDir: out}},
	}, nil)
	must(t, err)
	equal(t, "f", read(t, out, "f"), "from an input")
}

func TestResolveMissingImageIsAnError(t *testing.T) {
	ctx, c := connect(t)
	_, err := c.Build(ctx, client.SolveOpt{}, "interop", func(ctx context.Context, g gateway.Client) (*gateway.Result, error) {
		_, _, _, err := g.ResolveImageConfig(ctx, "127.0.0.1:1/none:latest", sourceresolver.Opt{})
		if err == nil {
			t.Fatal("resolved what is not there")
		}
		return nil, err
	}, nil)
	if err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Fatalf("%v", err)
	}
}

func TestUsageAndPrune(t *testing.T) {
	ctx, c := connect(t)
	name := identity.NewID()
	st := llb.Scratch().File(llb.Mkfile("/"+name, 0o644, bytes.Repeat([]byte("x"), 1<<16)), llb.WithCustomName("file "+name))
	_, _, err := solve(t, ctx, c, st, client.SolveOpt{})
	must(t, err)
	mine := func() int {
		records, err := c.DiskUsage(ctx)
		must(t, err)
		n := 0
		for _, r := range records {
			if strings.Contains(r.Description, name) {
				n++
			}
		}
		return n
	}
	equal(t, "records", mine(), 1)
	ch := make(chan client.UsageInfo, 1024)
	must(t, c.Prune(ctx, ch, client.PruneAll))
	equal(t, "records after prune", mine(), 0)
	if len(ch) == 0 {
		t.Fatal("prune names nothing that it removed")
	}
}

func TestHistory(t *testing.T) {
	ctx, c := connect(t)
	ref := identity.NewID()
	_, _, err := solve(t, ctx, c, llb.Scratch().File(llb.Mkfile("/h", 0o644, []byte(ref))), client.SolveOpt{Ref: ref})
	must(t, err)
	record := func() *controlapi.BuildHistoryRecord {
		stream, err := c.ControlClient().ListenBuildHistory(ctx, &controlapi.BuildHistoryRequest{Ref: ref, EarlyExit: true})
		must(t, err)
		for {
			ev, err := stream.Recv()
			if err == io.EOF || err != nil && strings.Contains(err.Error(), "is deleted") {
				return nil
			}
			must(t, err)
			if ev.Record != nil && ev.Record.Ref == ref && ev.Type == controlapi.BuildHistoryEventType_COMPLETE {
				return ev.Record
			}
		}
	}
	r := record()
	if r == nil || r.CompletedAt == nil || r.NumCompletedSteps == 0 || r.Error != nil {
		t.Fatalf("record: %+v", r)
	}
	_, err = c.ControlClient().UpdateBuildHistory(ctx, &controlapi.UpdateBuildHistoryRequest{Ref: ref, Delete: true})
	must(t, err)
	if r := record(); r != nil {
		t.Fatalf("deleted and still there: %+v", r)
	}
}

func TestEntitlementIsAsked(t *testing.T) {
	ctx, c := connect(t)
	root, mounts := shell(t)
	_, _, err := solve(t, ctx, c, root.Run(sh("true"), llb.Security(llb.SecurityModeInsecure)).Root(), client.SolveOpt{LocalMounts: mounts})
	if err == nil || !strings.Contains(err.Error(), "security.insecure is not allowed") {
		t.Fatalf("%v", err)
	}
}
