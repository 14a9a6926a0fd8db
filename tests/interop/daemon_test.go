// Package interop drives slipwayd with BuildKit's own Go client.
package interop

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	"github.com/tonistiigi/fsutil"
)

const patience = 90 * time.Second // a sanitizer build on a busy machine is slow

var (
	daemonAddress string
	busybox       string // a static busybox; empty: steps cannot run
)

func TestMain(m *testing.M) {
	os.Exit(withDaemon(m.Run))
}

// withDaemon runs f while a daemon of our own serves daemonAddress, and reports a daemon that does not end well.
func withDaemon(f func() int) int {
	dir, err := os.MkdirTemp("", "slipway-interop.")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 3
	}
	defer os.RemoveAll(dir)
	for _, path := range []string{"/bin/busybox", "/usr/bin/busybox"} {
		if _, err := os.Stat(path); err == nil && os.Geteuid() == 0 {
			busybox = path
		}
	}
	daemonAddress = "unix://" + filepath.Join(dir, "d.sock")
	var log bytes.Buffer
	cmd := exec.Command(program(), "--root", filepath.Join(dir, "root"), "--addr", daemonAddress)
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.Env = append(os.Environ(), "ASAN_OPTIONS=detect_leaks=0:exitcode=99", "UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1:exitcode=99")
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 3
	}
	code := f()
	_ = cmd.Process.Signal(syscall.SIGTERM)
	timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	err = cmd.Wait()
	timer.Stop()
	if err != nil || strings.Contains(log.String(), "runtime error:") {
		fmt.Fprintf(os.Stderr, "slipwayd: %v\n%s\n", err, log.String())
		return 1
	}
	return code
}

func program() string {
	dir := os.Getenv("SLIPWAY_TEST_BIN")
	for _, path := range []string{filepath.Join(dir, "src", "daemon", "slipwayd"), filepath.Join(dir, "slipwayd")} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return "slipwayd"
}

func connect(t *testing.T) (context.Context, *client.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	c, err := client.New(ctx, daemonAddress)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	must(t, c.Wait(ctx))
	return ctx, c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%+v", err)
	}
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: %v, expected %v", what, got, want)
	}
}

// folder makes a directory of the files, given as name, content, name, content ...
func folder(t *testing.T, files ...string) fsutil.FS {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i+1 < len(files); i += 2 {
		path := filepath.Join(dir, files[i])
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(files[i+1]), 0o644))
	}
	fs, err := fsutil.NewFS(dir)
	must(t, err)
	return fs
}

// shell is a root file system with /bin/sh, and the mounts that bring it.
func shell(t *testing.T) (llb.State, map[string]fsutil.FS) {
	t.Helper()
	if busybox == "" {
		t.Skip("steps need root and busybox-static")
	}
	data, err := os.ReadFile(busybox)
	must(t, err)
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "busybox"), data, 0o755))
	must(t, os.Chtimes(filepath.Join(dir, "busybox"), time.Unix(1, 0), time.Unix(1, 0)))
	fs, err := fsutil.NewFS(dir)
	must(t, err)
	from := llb.Local("tools", llb.SharedKeyHint("interop-tools"))
	root := llb.Scratch().
		File(llb.Mkdir("/bin", 0o755).Mkdir("/tmp", 0o1777)).
		File(llb.Copy(from, "busybox", "/bin/busybox")).
		File(llb.Copy(from, "busybox", "/bin/sh")).
		Dir("/").AddEnv("PATH", "/bin")
	return root, map[string]fsutil.FS{"tools": fs}
}

func sh(script string, args ...any) llb.RunOption {
	return llb.Args([]string{"/bin/sh", "-c", fmt.Sprintf(script, args...)})
}

// seen collects what a build's status stream says.
type seen struct {
	vertexes map[string]*client.Vertex // by name, the last state
	logs     strings.Builder
	warnings []*client.VertexWarning
	done     chan struct{}
}

func watch() (*seen, chan *client.SolveStatus) {
	s := &seen{vertexes: map[string]*client.Vertex{}, done: make(chan struct{})}
	ch := make(chan *client.SolveStatus)
	go func() {
		defer close(s.done)
		for status := range ch {
			for _, v := range status.Vertexes {
				s.vertexes[v.Name] = v
			}
			for _, l := range status.Logs {
				s.logs.Write(l.Data)
			}
			s.warnings = append(s.warnings, status.Warnings...)
		}
	}()
	return s, ch
}

func solve(t *testing.T, ctx context.Context, c *client.Client, st llb.State, opt client.SolveOpt) (*client.SolveResponse, *seen, error) {
	t.Helper()
	def, err := st.Marshal(ctx, llb.LinuxAmd64)
	must(t, err)
	s, ch := watch()
	res, err := c.Solve(ctx, def, opt, ch)
	<-s.done
	return res, s, err
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(path...))
	must(t, err)
	return string(data)
}
