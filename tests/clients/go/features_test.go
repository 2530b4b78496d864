package clients

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// features are what a client is tested for: the columns of the table of
// clients, by the names that every suite uses.
type features struct {
	connect, session, token, password, certificate, encryption, query, parameters, prepared, batch, ingest, transactions,
	metadata, cancel, errors, isolation, types, streaming func(t *testing.T)
}

// test runs every feature as a subtest of its name, and records how it ended.
// A feature that the client has no words for is left out.
func (f features) test(t *testing.T, client string) {
	for _, feature := range []struct {
		name string
		test func(t *testing.T)
	}{
		{"connect", f.connect},
		{"session", f.session},
		{"token", f.token},
		{"password", f.password},
		{"certificate", f.certificate},
		{"encryption", f.encryption},
		{"query", f.query},
		{"parameters", f.parameters},
		{"prepared", f.prepared},
		{"batch", f.batch},
		{"ingest", f.ingest},
		{"transactions", f.transactions},
		{"metadata", f.metadata},
		{"cancel", f.cancel},
		{"errors", f.errors},
		{"isolation", f.isolation},
		{"types", f.types},
		{"streaming", f.streaming},
	} {
		if feature.test == nil {
			continue
		}
		// A subtest that -run does not select is passed without having run.
		ran := false
		passed := t.Run(feature.name, func(t *testing.T) {
			ran = true
			feature.test(t)
		})
		if ran {
			record(t, client, feature.name, passed)
		}
	}
}

// record appends a line of JSON to the file that JAMMI_FEATURES names, if any.
func record(t *testing.T, client, feature string, passed bool) {
	name := os.Getenv("JAMMI_FEATURES")
	if name == "" {
		return
	}
	file, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	require.NoError(t, err)
	defer file.Close()
	line := struct {
		Client  string `json:"client"`
		Feature string `json:"feature"`
		Passed  bool   `json:"passed"`
	}{client, feature, passed}
	require.NoError(t, json.NewEncoder(file).Encode(line))
}
