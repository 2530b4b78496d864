package clients

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "jammi/tests/clients/go/session"
)

const sessionHeader = "jammi-session-id"

// Session is one session of the server, bound to a tenant unless that is empty.
type Session struct {
	t        *testing.T
	id       string
	sessions pb.SessionServiceClient
}

func newSession(t *testing.T, tenant string) *Session {
	t.Helper()
	session := &Session{t, "session-" + uuid.NewString(), pb.NewSessionServiceClient(dial(t))}
	if tenant != "" {
		session.bind(t, tenant)
	}
	return session
}

// dial opens a gRPC connection, which ends with the test.
func dial(t *testing.T) *grpc.ClientConn {
	t.Helper()
	connection, err := grpc.NewClient(server.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, connection.Close()) })
	return connection
}

// ctx carries the session's header to every gRPC call that is made with it.
func (s *Session) ctx() context.Context {
	return s.in(s.t.Context())
}

func (s *Session) in(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, sessionHeader, s.id)
}

func (s *Session) bind(t *testing.T, tenant string) {
	t.Helper()
	answer, err := s.sessions.SetTenant(s.ctx(), &pb.SetTenantRequest{Tenant: &pb.Tenant{Id: tenant}})
	require.NoError(t, err)
	require.Equal(t, tenant, answer.Tenant.Id)
}

// bound is the tenant that the server says the session is bound to, or nothing.
func (s *Session) bound(t *testing.T) string {
	t.Helper()
	answer, err := s.sessions.GetTenant(s.ctx(), &pb.GetTenantRequest{})
	require.NoError(t, err)
	return answer.GetTenant().GetId()
}

func (s *Session) clear(t *testing.T) {
	t.Helper()
	_, err := s.sessions.ClearTenant(s.ctx(), &pb.ClearTenantRequest{})
	require.NoError(t, err)
}

// dsn is the session as database/sql is told of it, with more parameters.
func (s *Session) dsn(more ...string) string {
	return dsn(append([]string{sessionHeader, s.id}, more...)...)
}

// dsn is the server as database/sql is told of it, with parameters in pairs.
func dsn(parameters ...string) string {
	values := url.Values{}
	for i := 0; i < len(parameters); i += 2 {
		values.Set(parameters[i], parameters[i+1])
	}
	return "flightsql://" + server.Address + "?" + values.Encode()
}

// newTenant is a tenant that no other test has.
func newTenant() string {
	return uuid.NewString()
}

// unique is a name that no other test uses.
func unique() string {
	return "t" + strings.ReplaceAll(uuid.NewString(), "-", "")[:12]
}

// notes registers a shared source with two rows of Alice, one of Bob, and one
// of nobody; it answers its name in SQL.
func notes(t *testing.T, alice, bob string) string {
	t.Helper()
	name := unique()
	file := filepath.Join(t.TempDir(), "notes.csv")
	rows := fmt.Sprintf("id,tenant_id,title\n1,%s,a1\n2,%s,a2\n3,%s,b1\n4,,shared\n", alice, alice, bob)
	require.NoError(t, os.WriteFile(file, []byte(rows), 0o600))
	server.command(t, "", "sources", "add", name, file)
	return name + ".public." + name
}

// refused tells that the error is the server's, of this code, and that its text
// holds the parts.
func refused(t *testing.T, err error, code codes.Code, parts ...string) {
	t.Helper()
	require.Error(t, err)
	require.Equal(t, code.String(), status.Code(err).String(), "%v", err)
	for _, part := range parts {
		require.Contains(t, err.Error(), part)
	}
}
