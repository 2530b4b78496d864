package clients

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apache/arrow-adbc/go/adbc"
	driver "github.com/apache/arrow-adbc/go/adbc/driver/flightsql"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	sqldriver "github.com/apache/arrow-go/v18/arrow/flight/flightsql/driver"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
)

const notAccepted = "the request's credential is not accepted"

// holder is somebody who may sign in, by whatever is not empty.
type holder struct {
	user, secret         string
	certificate, keyOfIt string
}

// guarded is a server that authenticates, and two tenants' holders of each of its kinds.
type guarded struct {
	*Server
	authority              *authority
	keys, passwords, shown [2]holder
}

// guard starts a server that knows clients by keys, by passwords and, where it is
// encrypted, by certificates.
func guard(t *testing.T, encrypted bool) *guarded {
	t.Helper()
	guarded := &guarded{}
	dir, users := t.TempDir(), [2]string{"alice", "bob"}
	tenants := [2]string{newTenant(), newTenant()}
	settings := []string{"JAMMI_AUTH__METHODS=api_key,password"}
	if encrypted {
		guarded.authority = newAuthority(t)
		put := func(name, content string) string {
			file := filepath.Join(dir, name)
			require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
			return file
		}
		clients := ""
		for at, user := range users {
			certificate, key := guarded.authority.issue(t, user)
			guarded.shown[at] = holder{user: user, certificate: certificate, keyOfIt: key}
			clients += fmt.Sprintf("[[clients]]\ncertificate = \"cn:%s\"\nuser = %q\ntenants = [%q]\n", user, user, tenants[at])
		}
		certificate, key := guarded.authority.issue(t, "server")
		settings = []string{
			"JAMMI_AUTH__METHODS=api_key,password,mtls",
			"JAMMI_AUTH__MTLS__CLIENTS_FILE=" + put("clients.toml", clients),
			"JAMMI_TLS__CERTIFICATE_FILE=" + put("server.pem", certificate),
			"JAMMI_TLS__PRIVATE_KEY_FILE=" + put("server.key", key),
			"JAMMI_TLS__CLIENT_CA_FILE=" + put("ca.pem", guarded.authority.pem),
		}
	}
	server, err := startServer(dir, settings...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.stop()) })
	guarded.Server = server
	for at, user := range users {
		key := server.beside(t, "", "keys", "create", user, "--acts-for", tenants[at])
		guarded.keys[at] = holder{user: user, secret: key}
		password := "the password of " + user
		server.beside(t, password+"\n", "users", "create", user, "--acts-for", tenants[at])
		guarded.passwords[at] = holder{user: user, secret: password}
	}
	return guarded
}

// signIn opens a client as a holder, and runs one statement.
type signIn func(ctx context.Context, t *testing.T, at *guarded, as holder, sql string) (rows string, err error)

// signsIn tells that two tenants' holders read their own rows by a client, and that
// nobody else reads any.
func signsIn(t *testing.T, at *guarded, by signIn, holders [2]holder) {
	t.Helper()
	table, wrong := unique(), []holder{}
	for _, holder := range holders {
		for _, sql := range []string{
			"CREATE TABLE " + table + " (word VARCHAR)",
			fmt.Sprintf("INSERT INTO %s VALUES ('of %s')", table, holder.user),
		} {
			_, err := by(t.Context(), t, at, holder, sql)
			require.NoError(t, err, sql)
		}
	}
	for _, holder := range holders {
		rows, err := by(t.Context(), t, at, holder, "SELECT word FROM "+table)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("[[of %s]]", holder.user), rows)
	}
	if holders[0].secret != "" {
		// Of another, of nobody, and none.
		wrong = append(wrong, holder{user: "alice", secret: holders[1].secret + "x"}, holder{user: "mallory", secret: "jammi_0"})
	} else {
		certificate, key := at.authority.issue(t, "mallory")
		wrong = append(wrong, holder{certificate: certificate, keyOfIt: key})
	}
	for _, holder := range wrong {
		rows, err := by(t.Context(), t, at, holder, "SELECT word FROM "+table)
		require.Error(t, err, "%s reads %s", holder.user, rows)
		require.Contains(t, err.Error(), notAccepted)
		require.NotContains(t, err.Error(), "of bob")
	}
}

// ways are how a client signs in.
type ways struct {
	token, certificate signIn
	// By what is done with the user and the password.
	passwords map[string]signIn
}

func (w ways) byToken(t *testing.T) {
	at := guard(t, false)
	signsIn(t, at, w.token, at.keys)
}

func (w ways) byPassword(t *testing.T) {
	at := guard(t, false)
	for name, by := range w.passwords {
		t.Run(name, func(t *testing.T) { signsIn(t, at, by, at.passwords) })
		t.Run(name+", with a key for a password", func(t *testing.T) { signsIn(t, at, by, at.keys) })
	}
}

func (w ways) byCertificate(t *testing.T) {
	at := guard(t, true)
	signsIn(t, at, w.certificate, at.shown)
}

func (w ways) encrypted(t *testing.T) {
	at := guard(t, true)
	t.Run("by a token", func(t *testing.T) { signsIn(t, at, w.token, at.keys) })
	for name, by := range w.passwords {
		t.Run(name, func(t *testing.T) { signsIn(t, at, by, at.passwords) })
	}
	t.Run("but not by another root", func(t *testing.T) {
		another := &guarded{Server: at.Server, authority: newAuthority(t)}
		rows, err := w.token(t.Context(), t, another, at.keys[0], "SELECT 1")
		require.Error(t, err, rows)
		require.Contains(t, err.Error(), "certificate")
	})
}

var flightWays = ways{
	token: func(ctx context.Context, t *testing.T, at *guarded, as holder, sql string) (string, error) {
		return flightRun(ctx, t, at, as, header("Bearer "+as.secret), sql)
	},
	certificate: func(ctx context.Context, t *testing.T, at *guarded, as holder, sql string) (string, error) {
		return flightRun(ctx, t, at, as, func(ctx context.Context, _ *flightsql.Client) (context.Context, error) {
			return ctx, nil
		}, sql)
	},
	passwords: map[string]signIn{
		"by Basic on every call": func(ctx context.Context, t *testing.T, at *guarded, as holder, sql string) (string, error) {
			encoded := base64.StdEncoding.EncodeToString([]byte(as.user + ":" + as.secret))
			return flightRun(ctx, t, at, as, header("Basic "+encoded), sql)
		},
		"by a handshake": func(ctx context.Context, t *testing.T, at *guarded, as holder, sql string) (string, error) {
			return flightRun(ctx, t, at, as, func(ctx context.Context, client *flightsql.Client) (context.Context, error) {
				return client.Client.AuthenticateBasicToken(ctx, as.user, as.secret)
			}, sql)
		},
	},
}

// sign has the calls that are made with the context carry a credential.
type sign func(context.Context, *flightsql.Client) (context.Context, error)

func header(value string) sign {
	return func(ctx context.Context, _ *flightsql.Client) (context.Context, error) {
		return metadata.AppendToOutgoingContext(ctx, "authorization", value), nil
	}
}

func flightRun(ctx context.Context, t *testing.T, at *guarded, as holder, sign sign, sql string) (string, error) {
	t.Helper()
	transport := insecurely
	if at.authority != nil {
		config := at.authority.trusted(t, as.certificate, as.keyOfIt)
		transport = grpc.WithTransportCredentials(credentials.NewTLS(config))
	}
	client, err := flightsql.NewClient(at.Address, nil, nil, transport)
	require.NoError(t, err)
	defer client.Close()
	if ctx, err = sign(ctx, client); err != nil {
		return "", err
	}
	if !strings.HasPrefix(sql, "SELECT") {
		_, err := client.ExecuteUpdate(ctx, sql)
		return "", err
	}
	info, err := client.Execute(ctx, sql)
	found, err := readAll(ctx, client, info, err)
	if err != nil {
		return "", err
	}
	return fmt.Sprint(found.rows), nil
}

var sqlWays = ways{
	token: func(ctx context.Context, t *testing.T, at *guarded, as holder, sql string) (string, error) {
		return sqlRun(ctx, t, at, as, nil, url.Values{"token": {as.secret}}, sql)
	},
	certificate: func(ctx context.Context, t *testing.T, at *guarded, as holder, sql string) (string, error) {
		return sqlRun(ctx, t, at, as, nil, url.Values{}, sql)
	},
	passwords: map[string]signIn{
		"by Basic on every call": func(ctx context.Context, t *testing.T, at *guarded, as holder, sql string) (string, error) {
			return sqlRun(ctx, t, at, as, url.UserPassword(as.user, as.secret), url.Values{}, sql)
		},
	},
}

func sqlRun(ctx context.Context, t *testing.T, at *guarded, as holder, user *url.Userinfo, values url.Values, sql string) (string, error) {
	t.Helper()
	if at.authority != nil {
		name := uuid.NewString()
		require.NoError(t, sqldriver.RegisterTLSConfig(name, at.authority.trusted(t, as.certificate, as.keyOfIt)))
		values.Set("tls", name)
	}
	dsn := url.URL{Scheme: "flightsql", User: user, Host: at.Address, RawQuery: values.Encode()}
	db := open(t, dsn.String())
	defer db.Close()
	if !strings.HasPrefix(sql, "SELECT") {
		_, err := db.ExecContext(ctx, sql)
		return "", err
	}
	found, err := fetch(db.QueryContext(ctx, sql))
	if err != nil {
		return "", err
	}
	return fmt.Sprint(found), nil
}

var adbcWays = ways{
	token: func(ctx context.Context, _ *testing.T, at *guarded, as holder, sql string) (string, error) {
		return adbcRun(ctx, at, as, map[string]string{driver.OptionAuthorizationHeader: "Bearer " + as.secret}, sql)
	},
	certificate: func(ctx context.Context, _ *testing.T, at *guarded, as holder, sql string) (string, error) {
		return adbcRun(ctx, at, as, map[string]string{}, sql)
	},
	passwords: map[string]signIn{
		"by a handshake": func(ctx context.Context, _ *testing.T, at *guarded, as holder, sql string) (string, error) {
			options := map[string]string{adbc.OptionKeyUsername: as.user, adbc.OptionKeyPassword: as.secret}
			return adbcRun(ctx, at, as, options, sql)
		},
	},
}

func adbcRun(ctx context.Context, at *guarded, as holder, options map[string]string, sql string) (rows string, err error) {
	options[adbc.OptionKeyURI] = at.URL
	if at.authority != nil {
		options[driver.OptionSSLRootCerts] = at.authority.pem
	}
	if as.certificate != "" {
		options[driver.OptionMTLSCertChain], options[driver.OptionMTLSPrivateKey] = as.certificate, as.keyOfIt
	}
	database, err := driver.NewDriver(memory.DefaultAllocator).NewDatabase(options)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, database.Close()) }()
	connection, err := database.Open(ctx)
	if err != nil {
		return "", err
	}
	opened := &ADBC{connection, ctx}
	defer func() { err = errors.Join(err, opened.end()) }()
	if !strings.HasPrefix(sql, "SELECT") {
		_, err := opened.write(sql, nil)
		return "", err
	}
	found, err := opened.answer(sql, nil)
	if err != nil {
		return "", err
	}
	return fmt.Sprint(found.rows), nil
}
