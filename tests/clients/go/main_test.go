package clients

import (
	"fmt"
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

// run starts the server, runs the tests, and has the server let go of
// everything that they held and stop in order.
func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "jammi-go-")
	if err != nil {
		return failed(err)
	}
	defer os.RemoveAll(dir)
	if server, err = startServer(dir); err != nil {
		return failed(err)
	}
	code := m.Run()
	if err := nothingIsHeld(); err != nil {
		code = failed(err)
	}
	if err := server.stop(); err != nil {
		code = failed(err)
	}
	return code
}

// nothingIsHeld waits until the server has no request, no query, no transaction, no
// temporary table and no connection open. Handles are the client's to keep: the server holds none.
func nothingIsHeld() error {
	for _, gauge := range []struct {
		name   string
		labels []string
	}{
		{"jammi_requests_active", nil},
		{"jammi_queries_running", nil},
		{"jammi_queries_polled", nil},
		{"jammi_transactions", nil},
		{"jammi_sessions_temporary", nil},
		{"jammi_connections", []string{`port="grpc"`}},
	} {
		if err := server.reaches(0, gauge.name, gauge.labels...); err != nil {
			return fmt.Errorf("after the suite, %w", err)
		}
	}
	panics, err := server.metric("jammi_panics_total")
	if err == nil && panics != 0 {
		err = fmt.Errorf("%v requests panicked", panics)
	}
	return err
}

func failed(err error) int {
	fmt.Fprintln(os.Stderr, "FAIL:", err)
	return 1
}
