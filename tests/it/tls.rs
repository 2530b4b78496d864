//! Encrypted connections: who is let in, and what happens to files that change.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jammi_db::config::{AuthenticationMethod, TlsConfig};
use jammi_db::engine::Engine;
use jammi_db::server::{Server, method_names};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType,
    date_time_ymd,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::authentication::{ANY_NUMBER, call, words};
use crate::client::{ALICE, BOB, Client};
use crate::harness::{TestServer, config, set_tenant};
use crate::writes::refused;

/// Who issues certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
pub struct Issued {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            rcgen::KeyUsagePurpose::KeyCertSign,
            rcgen::KeyUsagePurpose::CrlSign,
        ];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        Authority(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    pub fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let mut params = CertificateParams::new(vec!["localhost".into()]).unwrap();
        params
            .subject_alt_names
            .push(SanType::IpAddress([127, 0, 0, 1].into()));
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Issued {
            certificate: params.signed_by(&key, &self.0).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    /// The serial numbers that it has revoked, as a list in PEM.
    pub fn revoked(&self, serials: &[u64]) -> String {
        let at = date_time_ymd(2020, 1, 1);
        let revoked_certs = serials
            .iter()
            .map(|serial| rcgen::RevokedCertParams {
                serial_number: (*serial).into(),
                revocation_time: at,
                reason_code: None,
                invalidity_date: None,
            })
            .collect();
        let list = rcgen::CertificateRevocationListParams {
            this_update: at,
            next_update: date_time_ymd(4000, 1, 1),
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        list.signed_by(&self.0).unwrap().pem().unwrap()
    }

    /// What trusts it.
    pub fn trusted(&self) -> ClientTlsConfig {
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(self.pem()))
    }
}

impl Issued {
    pub fn identity(&self) -> Identity {
        Identity::from_pem(&self.certificate, &self.key)
    }
}

/// Where a server's certificate is.
pub struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    pub fn of(issued: &Issued) -> Self {
        let files = Files {
            dir: tempfile::tempdir().unwrap(),
        };
        files.write(issued);
        files
    }

    pub fn write(&self, issued: &Issued) {
        std::fs::write(self.path("server.pem"), &issued.certificate).unwrap();
        std::fs::write(self.path("server.key"), &issued.key).unwrap();
    }

    pub fn put(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn tls(&self) -> TlsConfig {
        TlsConfig {
            certificate_file: Some(self.path("server.pem")),
            private_key_file: Some(self.path("server.key")),
            ..TlsConfig::default()
        }
    }
}

pub async fn connect(
    server: &TestServer,
    tls: ClientTlsConfig,
) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("https://{}", server.grpc)).unwrap();
    endpoint.tls_config(tls)?.connect().await
}

/// Connects again and again until `is_so` of what came of it.
pub async fn eventually<T>(mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(found) = attempt().await {
            return found;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "it never came to that"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A connection by one version of TLS, for one protocol.
async fn by_hand(
    server: &TestServer,
    authority: &Authority,
    version: &'static SupportedProtocolVersion,
    protocol: &[u8],
) -> TlsStream<TcpStream> {
    use rustls::pki_types::pem::PemObject;
    let mut roots = RootCertStore::empty();
    let root = rustls::pki_types::CertificateDer::from_pem_slice(authority.pem().as_bytes());
    roots.add(root.unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let stream = TcpStream::connect(server.grpc).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap()
}

#[tokio::test]
async fn connections_are_encrypted_and_plain_ones_refused() {
    let authority = Authority::new("authority");
    let files = Files::of(&authority.issue(|_| {}));
    let server = TestServer::start_with(|config| {
        config.tls = TlsConfig {
            http: true,
            ..files.tls()
        };
    })
    .await;
    let channel = connect(&server, authority.trusted()).await.unwrap();
    let mut client = Client::over(channel, None);
    // More than a record of TLS, and more than what is held back.
    let sql = "SELECT repeat('x', 100000) AS word";
    assert_eq!(client.query(sql).await.unwrap().num_rows(), 1);

    // Whoever does not know the root, and whoever does not encrypt.
    let stranger = Authority::new("stranger");
    assert!(connect(&server, stranger.trusted()).await.is_err());
    let plain = Channel::from_shared(format!("http://{}", server.grpc)).unwrap();
    let refused = match plain.connect().await {
        Ok(channel) => Client::over(channel, None).query("SELECT 1").await.is_err(),
        Err(_) => true,
    };
    assert!(refused);
    let mut answer = Vec::new();
    let mut plain = TcpStream::connect(server.http).await.unwrap();
    plain
        .write_all(b"GET /metrics HTTP/1.1\r\nhost: jammi\r\n\r\n")
        .await
        .unwrap();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");

    // Both versions that are spoken, and browsers' protocol.
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut stream = by_hand(&server, &authority, version, b"http/1.1").await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        let request = "POST /jammi.v1.session.SessionService/GetTenant HTTP/1.1\r\nhost: jammi\r\n\
                       jammi-session-id: s\r\ncontent-type: application/grpc-web+proto\r\n\
                       connection: close\r\ncontent-length: 5\r\n\r\n\0\0\0\0\0";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("grpc-status:0"), "{answer}");
    }
}

/// A client that connects and says nothing has others wait for nothing, and is not
/// waited for.
#[tokio::test]
async fn handshakes_do_not_wait_for_each_other() {
    let authority = Authority::new("authority");
    let files = Files::of(&authority.issue(|_| {}));
    let server = TestServer::start_with(|config| {
        config.tls = files.tls();
        config.server.first_bytes_timeout_ms = 2_000;
    })
    .await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(server.grpc).await.unwrap());
    }
    let channel = connect(&server, authority.trusted()).await.unwrap();
    let mut client = Client::over(channel, None);
    assert_eq!(client.query("SELECT 1").await.unwrap().num_rows(), 1);
    for mut stream in silent {
        let mut nothing = Vec::new();
        let _ = stream.read_to_end(&mut nothing).await;
        assert_eq!(nothing, b"");
    }
    // A handshake that is begun and not gone on with ends too, as does a server that
    // stops meanwhile.
    let mut begun = TcpStream::connect(server.grpc).await.unwrap();
    begun.write_all(&[22, 3, 1]).await.unwrap();
    drop(client);
    server.stop().await;
    let mut nothing = Vec::new();
    let _ = begun.read_to_end(&mut nothing).await;
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named_at_the_start() {
    let authority = Authority::new("authority");
    let good = authority.issue(|_| {});
    let other = authority.issue(|_| {});
    let expired = authority.issue(|params| params.not_after = date_time_ymd(2020, 1, 1));
    let future = authority.issue(|params| params.not_before = date_time_ymd(3000, 1, 1));
    let not_pem = "none".to_owned();
    for (certificate, key, file, words) in [
        (&good.certificate, &other.key, "server.key", "does not fit"),
        (
            &expired.certificate,
            &expired.key,
            "server.pem",
            "expired on",
        ),
        (
            &future.certificate,
            &future.key,
            "server.pem",
            "not valid before",
        ),
        (&not_pem, &good.key, "server.pem", "no certificate"),
        (&good.certificate, &not_pem, "server.key", "no private key"),
        (
            &good.certificate,
            &good.certificate,
            "server.key",
            "no private key",
        ),
    ] {
        let files = Files::of(&Issued {
            certificate: certificate.clone(),
            key: key.clone(),
        });
        let text = refusal(files.tls()).await;
        let path = files.path(file).display().to_string();
        assert!(
            text.contains(&path) && text.contains(words),
            "{file}: {text}"
        );
        assert!(!text.contains("PRIVATE KEY-----"), "{text}");
    }
    let files = Files::of(&good);
    for (change, words) in [
        (
            TlsConfig {
                private_key_file: Some(files.path("missing.key")),
                ..files.tls()
            },
            "missing.key",
        ),
        (
            TlsConfig {
                client_ca_file: Some(files.path("server.key")),
                ..files.tls()
            },
            "tls.client_ca_file",
        ),
        (
            TlsConfig {
                client_ca_file: Some(files.put("ca.pem", &authority.pem())),
                client_crl_file: Some(files.path("server.pem")),
                ..files.tls()
            },
            "tls.client_crl_file",
        ),
    ] {
        let text = refusal(change).await;
        assert!(text.contains(words), "{words}: {text}");
    }
}

async fn refusal(tls: TlsConfig) -> String {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.tls = tls;
    let engine = Engine::open(&config).await.unwrap();
    match Server::bind(config, engine).await {
        Ok(_) => panic!("it serves"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn certificates_are_read_again_and_broken_ones_are_not_used() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let files = Files::of(&old.issue(|_| {}));
    let server = TestServer::start_with(|config| config.tls = files.tls()).await;
    let channel = connect(&server, old.trusted()).await.unwrap();
    let mut client = Client::over(channel, None);
    client.query("SELECT 1").await.unwrap();

    // As when a renewal has written the first of two files, for now or for good.
    let renewed = new.issue(|_| {});
    std::fs::write(files.path("server.pem"), &renewed.certificate).unwrap();
    for _ in 0..20 {
        assert!(connect(&server, old.trusted()).await.is_ok());
    }
    files.write(&renewed);
    eventually(async || connect(&server, new.trusted()).await.ok()).await;
    assert!(connect(&server, old.trusted()).await.is_err());
    // What was connected is so still.
    client.query("SELECT 1").await.unwrap();
}

/// A server that knows clients by their certificates.
struct Mutual {
    server: TestServer,
    files: Files,
    authority: Authority,
}

impl Mutual {
    async fn start() -> Self {
        let authority = Authority::new("authority");
        let files = Files::of(&authority.issue(|_| {}));
        let clients = files.put(
            "clients.toml",
            &format!(
                "[[clients]]\ncertificate = \"cn:alice\"\nuser = \"alice\"\ntenants = [\"{ALICE}\"]\n\
                 [[clients]]\ncertificate = \"uri:spiffe://example.com/bob\"\nuser = \"bob\"\n\
                 tenants = [\"{BOB}\"]\n\
                 [[clients]]\ncertificate = \"dns:both.example.com\"\nuser = \"both\"\n\
                 tenants = [\"{ALICE}\", \"{BOB}\"]\nroles = [\"global-writer\"]\n"
            ),
        );
        let tls = TlsConfig {
            client_ca_file: Some(files.put("ca.pem", &authority.pem())),
            client_crl_file: Some(files.put("revoked.pem", &authority.revoked(&[]))),
            ..files.tls()
        };
        let server = TestServer::start_with(|config| {
            config.tls = tls;
            config.auth.methods = vec![AuthenticationMethod::Mtls, AuthenticationMethod::ApiKey];
            config.auth.mtls.clients_file = Some(clients);
            config.auth.failures_max = ANY_NUMBER;
        })
        .await;
        Mutual {
            server,
            files,
            authority,
        }
    }

    fn issue(&self, common_name: &str, names: &[SanType]) -> Issued {
        self.authority.issue(|params| {
            params
                .distinguished_name
                .push(DnType::CommonName, common_name);
            params.subject_alt_names = names.to_vec();
        })
    }

    async fn channel(&self, identity: Option<&Issued>) -> Channel {
        let tls = self.authority.trusted();
        let tls = match identity {
            Some(issued) => tls.identity(issued.identity()),
            None => tls,
        };
        connect(&self.server, tls).await.unwrap()
    }

    async fn client(&self, identity: &Issued, session: Option<&'static str>) -> Client {
        Client::over(self.channel(Some(identity)).await, session)
    }
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

#[tokio::test]
async fn a_certificate_reads_and_writes_for_its_tenants_alone() {
    let mutual = Mutual::start().await;
    let alices = mutual.issue("alice", &[]);
    let bobs = mutual.issue("somebody", &[uri("spiffe://example.com/bob")]);
    for (issued, word) in [(&alices, "hers"), (&bobs, "canary")] {
        let mut client = mutual.client(issued, Some("s")).await;
        client.query("CREATE TABLE t (word TEXT)").await.unwrap();
        let insert = format!("INSERT INTO t VALUES ('{word}')");
        client.query(&insert).await.unwrap();
    }
    for (issued, word) in [(&alices, "hers"), (&bobs, "canary")] {
        let mut client = mutual.client(issued, Some("s")).await;
        let rows = client.query("SELECT word FROM t").await.unwrap();
        assert_eq!(words(&rows), [word]);
    }
    let mut alice = mutual.client(&alices, Some("s")).await;
    let denied = alice
        .sessions
        .set_tenant(alice.request(set_tenant(BOB)))
        .await;
    refused(
        denied,
        Code::PermissionDenied,
        "does not act for the tenant",
    );
    let both = mutual.issue("x", &[dns("Both.example.com")]);
    let mut both = mutual.client(&both, Some("both")).await;
    both.query("CREATE TABLE shared (word TEXT)").await.unwrap();
    both.bind(BOB).await;
    let rows = both.query("SELECT word FROM t").await.unwrap();
    assert_eq!(words(&rows), ["canary"]);

    // Who may not at all: nobody's certificate, two clients', one of another root,
    // and none.
    let unknown = [
        mutual.issue("carol", &[]),
        mutual.issue("alice", &[uri("spiffe://example.com/bob")]),
        // A name counts where it stands.
        mutual.issue(
            "spiffe://example.com/bob",
            &[dns("alice"), uri("both.example.com")],
        ),
        mutual.issue("Alice", &[]),
    ];
    for issued in &unknown {
        let mut client = mutual.client(issued, None).await;
        refused(
            client.query("SELECT 1").await,
            Code::Unauthenticated,
            "the request's credential is not accepted",
        );
    }
    let stranger = Authority::new("authority").issue(|params| {
        params.distinguished_name.push(DnType::CommonName, "alice");
    });
    let tls = mutual.authority.trusted().identity(stranger.identity());
    // With TLS 1.3 a client learns of it with its first answer.
    let is_refused = match connect(&mutual.server, tls).await {
        Ok(channel) => Client::over(channel, None).query("SELECT 1").await.is_err(),
        Err(_) => true,
    };
    assert!(is_refused);
    let channel = mutual.channel(None).await;
    for method in method_names() {
        let is_exempt = method.starts_with("/grpc.health.") || method.contains("Reflection");
        let absent = call(&channel, method, None).await;
        let is_unknown = absent.code() == Code::Unauthenticated;
        assert_eq!(is_unknown, !is_exempt, "{method}: {absent:?}");
    }
}

#[tokio::test]
async fn a_certificate_that_is_revoked_is_refused_on_open_connections_too() {
    let mutual = Mutual::start().await;
    let of_serial = |serial: u64| {
        mutual.authority.issue(|params| {
            params.distinguished_name.push(DnType::CommonName, "alice");
            params.serial_number = Some(serial.into());
        })
    };
    let (kept, lost) = (of_serial(77), of_serial(78));
    let mut keeps = mutual.client(&kept, None).await;
    let mut loses = mutual.client(&lost, None).await;
    for client in [&mut keeps, &mut loses] {
        client.query("SELECT 1").await.unwrap();
    }
    mutual
        .files
        .put("revoked.pem", &mutual.authority.revoked(&[78]));
    let answer = eventually(async || loses.query("SELECT 1").await.err()).await;
    assert_eq!(answer.code(), Code::Unauthenticated);
    keeps.query("SELECT 1").await.unwrap();
    let tls = mutual.authority.trusted().identity(lost.identity());
    let is_refused = match connect(&mutual.server, tls).await {
        Ok(channel) => Client::over(channel, None).query("SELECT 1").await.is_err(),
        Err(_) => true,
    };
    assert!(is_refused);

    // Who is whom is read again too.
    mutual.files.put("clients.toml", "clients = []\n");
    let answer = eventually(async || keeps.query("SELECT 1").await.err()).await;
    assert_eq!(answer.code(), Code::Unauthenticated);
}
