package clients

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Far beyond what a start, a stop or a query takes on a loaded machine: what
// takes longer hangs.
const deadline = 2 * time.Minute

// The one server that the tests share.
var server *Server

// Server is a `jammi serve` of its own process, on free loopback ports, which
// keeps its data in a directory of its own.
type Server struct {
	// Where gRPC and Flight SQL are served, as host:port.
	Address string
	// The same as a URL, which says whether it is encrypted.
	URL string
	// Where health and metrics are served, as a URL.
	HTTP string

	process  *exec.Cmd
	dir, log string
}

// startServer starts one in a directory, with settings as `NAME=value`.
func startServer(dir string, settings ...string) (*Server, error) {
	binary := os.Getenv("JAMMI_BIN")
	if binary == "" {
		return nil, fmt.Errorf("JAMMI_BIN does not name the jammi binary: run `make go`")
	}
	log, err := os.Create(filepath.Join(dir, "server.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	process := exec.Command(binary, "serve",
		"--artifact-dir", filepath.Join(dir, "data"),
		"--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0")
	process.Env, process.Dir, process.Stderr = append(environment(), settings...), dir, log
	stdout, err := process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := process.Start(); err != nil {
		return nil, err
	}
	server := &Server{process: process, dir: dir, log: log.Name()}
	lines := bufio.NewScanner(stdout)
	server.URL = listening(lines, "grpc")
	grpcURL, httpURL := server.URL, listening(lines, "http")
	if grpcURL == "" || httpURL == "" {
		_ = process.Process.Kill()
		_ = process.Wait()
		return nil, fmt.Errorf("the server did not start:\n%s", server.stderr())
	}
	_, server.Address, _ = strings.Cut(grpcURL, "://")
	server.HTTP = httpURL
	return server, nil
}

// listening is the URL in the server's next line, or nothing when it says
// something else.
func listening(lines *bufio.Scanner, scheme string) string {
	if !lines.Scan() {
		return ""
	}
	url, found := strings.CutPrefix(lines.Text(), "listening ")
	if !found || !strings.HasPrefix(url, scheme+"://") && !strings.HasPrefix(url, scheme+"+tls://") {
		return ""
	}
	return url
}

// environment is this process's, without what configures Jammi or object stores.
func environment() []string {
	kept := []string{"RUST_BACKTRACE=0"}
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "JAMMI_") && !strings.HasPrefix(entry, "AWS_") && !strings.HasPrefix(entry, "RUST_BACKTRACE=") {
			kept = append(kept, entry)
		}
	}
	return kept
}

// command runs the `jammi` command as `tenant`, or unbound, through the server.
func (s *Server) command(t *testing.T, tenant string, args ...string) string {
	t.Helper()
	args = append([]string{"--url", "grpc://" + s.Address}, args...)
	if tenant != "" {
		args = append([]string{"--tenant", tenant}, args...)
	}
	process := exec.Command(os.Getenv("JAMMI_BIN"), args...)
	process.Env = environment()
	output, err := process.CombinedOutput()
	require.NoError(t, err, "%v: %s", args, output)
	return string(output)
}

// beside runs the `jammi` command on the server's databases, and answers its one line.
func (s *Server) beside(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	process := exec.Command(os.Getenv("JAMMI_BIN"), append([]string{"--artifact-dir", filepath.Join(s.dir, "data")}, args...)...)
	process.Env, process.Stdin = environment(), strings.NewReader(stdin)
	output, err := process.Output()
	require.NoError(t, err, "%v", args)
	return strings.TrimSpace(string(output))
}

// stop asks the server to stop, which has to end in order.
func (s *Server) stop() error {
	if err := s.process.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	hung := time.AfterFunc(deadline, func() { _ = s.process.Process.Kill() })
	defer hung.Stop()
	if err := s.process.Wait(); err != nil {
		return fmt.Errorf("the server did not stop in order: %w\n%s", err, s.stderr())
	}
	if strings.Contains(s.stderr(), "panicked") {
		return fmt.Errorf("the server panicked:\n%s", s.stderr())
	}
	return nil
}

func (s *Server) stderr() string {
	text, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// metric is the value of the series of a name that has all these labels, given
// as `name="value"`; nothing was counted when there is none.
func (s *Server) metric(name string, labels ...string) (float64, error) {
	answer, err := http.Get(s.HTTP + "/metrics")
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, err
	}
series:
	for line := range strings.Lines(string(text)) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		found, foundLabels, _ := strings.Cut(series, "{")
		if found != name {
			continue
		}
		for _, label := range labels {
			if !strings.Contains(foundLabels, label) {
				continue series
			}
		}
		return strconv.ParseFloat(value, 64)
	}
	return 0, nil
}

// reaches waits until the metric has the value.
func (s *Server) reaches(want float64, name string, labels ...string) error {
	give := time.Now().Add(deadline)
	for {
		found, err := s.metric(name, labels...)
		if err != nil || found == want {
			return err
		}
		if time.Now().After(give) {
			return fmt.Errorf("%s%v is %v, not %v", name, labels, found, want)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// counted is the metric's value now.
func (s *Server) counted(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	value, err := s.metric(name, labels...)
	require.NoError(t, err)
	return value
}

// processorTicks is how long the server's process has computed, in clock ticks.
func (s *Server) processorTicks() (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.process.Process.Pid))
	if err != nil {
		return 0, err
	}
	// The second field, the command, is in parentheses and may hold blanks.
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	user, err := strconv.Atoi(fields[11])
	if err != nil {
		return 0, err
	}
	system, err := strconv.Atoi(fields[12])
	return user + system, err
}

// comesToRest waits until the server runs no request and computes nothing:
// what was cancelled does not go on unseen.
func (s *Server) comesToRest(t *testing.T) {
	t.Helper()
	require.NoError(t, s.reaches(0, "jammi_requests_active"))
	give := time.Now().Add(deadline)
	for {
		before, err := s.processorTicks()
		require.NoError(t, err)
		time.Sleep(200 * time.Millisecond)
		after, err := s.processorTicks()
		require.NoError(t, err)
		// Of two cores' forty; one tick is the background's.
		if after-before <= 1 {
			return
		}
		require.True(t, time.Now().Before(give), "the server goes on computing: %d ticks", after-before)
	}
}
