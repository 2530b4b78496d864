package jammi;

import com.google.protobuf.Message;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientInterceptors;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import io.grpc.protobuf.ProtoUtils;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.MetadataUtils;
import jammi.v1.catalog.Catalog.RegisterSourceRequest;
import jammi.v1.catalog.Catalog.RegisterSourceResponse;
import jammi.v1.session.Session.ClearTenantRequest;
import jammi.v1.session.Session.ClearTenantResponse;
import jammi.v1.session.Session.GetTenantRequest;
import jammi.v1.session.Session.GetTenantResponse;
import jammi.v1.session.Session.SetTenantRequest;
import jammi.v1.session.Session.SetTenantResponse;
import jammi.v1.session.Session.Tenant;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Properties;
import java.util.UUID;

/** One session of one server, bound to a tenant when there is one. */
final class Client implements AutoCloseable {
    static final String SESSION_HEADER = "jammi-session-id";

    final Server server;
    final String session = "session-" + UUID.randomUUID();
    private final ManagedChannel channel;
    private final Channel calls;

    Client(Server server, String tenant) {
        this.server = server;
        channel = NettyChannelBuilder.forAddress(server.host, server.port).usePlaintext().build();
        Metadata headers = new Metadata();
        headers.put(Metadata.Key.of(SESSION_HEADER, Metadata.ASCII_STRING_MARSHALLER), session);
        calls = ClientInterceptors.intercept(channel, MetadataUtils.newAttachHeadersInterceptor(headers));
        if (tenant != null) {
            bind(tenant);
        }
    }

    void bind(String tenant) {
        SetTenantRequest request = SetTenantRequest.newBuilder()
                .setTenant(Tenant.newBuilder().setId(tenant))
                .build();
        call("jammi.v1.session.SessionService/SetTenant", request, SetTenantResponse.getDefaultInstance());
    }

    void clear() {
        call("jammi.v1.session.SessionService/ClearTenant",
                ClearTenantRequest.getDefaultInstance(), ClearTenantResponse.getDefaultInstance());
    }

    /** The tenant that the server says the session is bound to. */
    Optional<String> bound() {
        GetTenantResponse answer = call("jammi.v1.session.SessionService/GetTenant",
                GetTenantRequest.getDefaultInstance(), GetTenantResponse.getDefaultInstance());
        return answer.hasTenant() ? Optional.of(answer.getTenant().getId()) : Optional.empty();
    }

    void addSource(String name, Path location) {
        RegisterSourceRequest request = RegisterSourceRequest.newBuilder()
                .setName(name)
                .setLocation(location.toString())
                .build();
        call("jammi.v1.catalog.CatalogService/RegisterSource",
                request, RegisterSourceResponse.getDefaultInstance());
    }

    /** A unary call, as a generated stub makes it. */
    @SuppressWarnings("unchecked")
    private <Q extends Message, A extends Message> A call(String method, Q request, A answer) {
        MethodDescriptor<Q, A> descriptor = MethodDescriptor.<Q, A>newBuilder()
                .setType(MethodDescriptor.MethodType.UNARY)
                .setFullMethodName(method)
                .setRequestMarshaller((MethodDescriptor.Marshaller<Q>)
                        ProtoUtils.marshaller(request.getDefaultInstanceForType()))
                .setResponseMarshaller(ProtoUtils.marshaller(answer))
                .build();
        return ClientCalls.blockingUnaryCall(calls, descriptor, CallOptions.DEFAULT, request);
    }

    /** The driver's address of the session, with {@code more} properties such as {@code "&catalog=x"}. */
    String url(String... more) {
        return "jdbc:arrow-flight-sql://" + server.host + ":" + server.port + "/?useEncryption=false&"
                + SESSION_HEADER + "=" + session + String.join("", more);
    }

    /** A connection of the driver whose calls carry the session's header. */
    Connection connect() throws SQLException {
        return DriverManager.getConnection(url());
    }

    /** The same by properties, over an address without any. */
    Connection connect(Properties properties) throws SQLException {
        properties.setProperty("useEncryption", "false");
        return DriverManager.getConnection(
                "jdbc:arrow-flight-sql://" + server.host + ":" + server.port, properties);
    }

    /** The rows of a query on a connection of its own. */
    List<List<Object>> rows(String sql) throws SQLException {
        try (Connection connection = connect()) {
            return rows(connection, sql);
        }
    }

    static List<List<Object>> rows(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement();
                ResultSet rows = statement.executeQuery(sql)) {
            return rows(rows);
        }
    }

    /** What is left of {@code rows}. */
    static List<List<Object>> rows(ResultSet rows) throws SQLException {
        List<List<Object>> all = new ArrayList<>();
        int columns = rows.getMetaData().getColumnCount();
        while (rows.next()) {
            List<Object> row = new ArrayList<>();
            for (int column = 1; column <= columns; column++) {
                row.add(rows.getObject(column));
            }
            all.add(row);
        }
        return all;
    }

    @Override
    public void close() {
        channel.shutdownNow();
    }
}
