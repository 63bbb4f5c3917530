//! One connection to the server: how it is made, and how long it lives.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fmt, io};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, RedisConnectionInfo, Value};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::classify;
use crate::store::StoreError;

/// Where the server is, or who knows it.
pub enum Endpoint {
    /// A host and a port.
    Tcp {
        /// A name or an address, an IPv6 one without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// The path of a Unix socket.
    Unix(PathBuf),
    /// The master that sentinels name.
    Sentinel(Sentinel),
    /// A Cluster, by any of its nodes. It has but one database.
    Cluster(Vec<Address>),
}

/// Sentinels, and which of their masters is meant.
pub struct Sentinel {
    /// What they call it.
    pub master: String,
    /// Where they listen.
    pub addresses: Vec<Address>,
    /// Who asks them; they do not share the server's users.
    pub credentials: Option<Credentials>,
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// A name or an address, an IPv6 one without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// One place to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Tcp(Address),
    Unix(PathBuf),
}

/// Who asks.
pub struct Credentials {
    /// The ACL user; `None` for `default`, which a plain `requirepass` protects.
    pub username: Option<String>,
    /// The password.
    pub password: SecretString,
}

/// How the server proves who it is, and how the gateway does.
#[derive(Default)]
pub struct TlsOptions {
    /// The CA certificates to trust (PEM), and no others; `None` for those of the system.
    pub ca: Option<Vec<u8>>,
    /// What the certificate must name; `None` for the host.
    pub server_name: Option<String>,
    /// For servers that ask for a certificate.
    pub client: Option<ClientCertificate>,
}

/// A certificate of the gateway's own.
pub struct ClientCertificate {
    /// The certificate and its chain (PEM).
    pub chain: Vec<u8>,
    /// Its key (PEM).
    pub key: SecretString,
}

/// Makes connections, each with the same credentials and the same TLS.
pub(super) struct Dialer {
    credentials: Option<Credentials>,
    database: u16,
    tls: Option<Tls>,
}

/// TLS as it is set up, for any host.
#[derive(Clone)]
pub(super) struct Tls {
    connector: TlsConnector,
    /// What every certificate must name; `None` for the host that is connected to.
    name: Option<ServerName<'static>>,
}

/// A connection that many operations share; closed when the last clone goes.
#[derive(Clone)]
pub(super) struct Link {
    connection: MultiplexedConnection,
    /// What moves the bytes. It would wait for answers that never come; so it ends with the last clone.
    driver: Arc<AbortOnDropHandle<()>>,
    place: Arc<Place>,
    /// See [`Link::lacks_set_nx_get`].
    lacks_set_nx_get: Arc<AtomicBool>,
}

impl Link {
    pub(super) const fn connection(&mut self) -> &mut MultiplexedConnection {
        &mut self.connection
    }

    /// Whether the server is known not to know `SET … NX GET` (Redis up to 6.2). A new connection may lead to another
    /// version, and learns it anew, for one command.
    pub(super) fn lacks_set_nx_get(&self) -> bool {
        self.lacks_set_nx_get.load(Ordering::Relaxed)
    }

    /// Takes note that it does not.
    pub(super) fn note_lack_of_set_nx_get(&self) {
        self.lacks_set_nx_get.store(true, Ordering::Relaxed);
    }

    /// Where it leads.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Whether the other side has closed it, as servers and balancers do with what is idle. Asking over such a link
    /// would fail though nothing is wrong.
    pub(super) fn is_closed(&self) -> bool {
        self.driver.is_finished()
    }
}

impl Dialer {
    pub(super) const fn new(
        credentials: Option<Credentials>,
        database: u16,
        tls: Option<Tls>,
    ) -> Self {
        Self { credentials, database, tls }
    }

    /// Whether `address` could be in a certificate, if one is asked for: told before anything connects.
    pub(super) fn vet(&self, address: &Address) -> Result<(), StoreError> {
        self.tls.as_ref().map_or(Ok(()), |tls| tls.name(&address.host).map(drop))
    }

    /// Connects and logs in. Bounded by the caller; a dropped future leaves nothing behind. In a box, for it is large, and
    /// would make every operation so that may have to connect.
    pub(super) fn dial<'a>(
        &'a self,
        place: &'a Place,
    ) -> Pin<Box<dyn Future<Output = Result<Link, StoreError>> + Send + 'a>> {
        Box::pin(self.dial_unboxed(place))
    }

    async fn dial_unboxed(&self, place: &Place) -> Result<Link, StoreError> {
        match place {
            Place::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(classify::connect_error)?;
                self.log_in(stream, place).await
            }
            Place::Tcp(address) => {
                let stream = connect_tcp(address).await.map_err(classify::connect_error)?;
                match &self.tls {
                    None => self.log_in(stream, place).await,
                    Some(tls) => {
                        let name = tls.name(&address.host)?;
                        let stream = tls.connector.connect(name, stream).await;
                        self.log_in(stream.map_err(classify::connect_error)?, place).await
                    }
                }
            }
        }
    }

    /// Logs in with commands of our own: the library makes one and the same error of every refusal, a server's that
    /// has too many clients included.
    pub(super) async fn log_in<S>(&self, stream: S, place: &Place) -> Result<Link, StoreError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // Nothing that a user of few rights may not do, such as CLIENT SETINFO; no time-out besides the caller's.
        let nothing_to_say = RedisConnectionInfo::default().set_skip_set_lib_name();
        let no_timeouts =
            AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let (connection, driver) =
            MultiplexedConnection::new_with_config(&nothing_to_say, stream, no_timeouts)
                .await
                .map_err(|error| classify::error(&error))?;
        let driver = Arc::new(AbortOnDropHandle::new(TaskTracker::new().spawn(driver)));
        let place = Arc::new(place.clone());
        let mut link = Link { connection, driver, place, lacks_set_nx_get: Arc::default() };
        if let Some(credentials) = &self.credentials {
            link.authenticate(credentials).await?;
        }
        if self.database != 0 {
            link.send(redis::cmd("SELECT").arg(self.database)).await?;
        }
        Ok(link)
    }
}

impl Link {
    async fn authenticate(&mut self, credentials: &Credentials) -> Result<(), StoreError> {
        match auth(credentials).query_async(&mut self.connection).await {
            Ok(Value::Okay) => Ok(()),
            // Not shown: it may repeat the password.
            Ok(_) => Err(StoreError::Unexpected("neither OK nor an error to AUTH".to_owned())),
            Err(error) => Err(classify::log_in_error(&error, credentials)),
        }
    }

    async fn send(&mut self, command: &Cmd) -> Result<(), StoreError> {
        match command.query_async(&mut self.connection).await {
            Ok(Value::Okay) => Ok(()),
            Ok(other) => Err(StoreError::Unexpected(format!("{other:?} at the log-in"))),
            Err(error) => Err(classify::error(&error)),
        }
    }
}

fn auth(credentials: &Credentials) -> Cmd {
    let mut auth = redis::cmd("AUTH");
    if let Some(username) = &credentials.username {
        auth.arg(username);
    }
    auth.arg(credentials.password.expose_secret());
    auth
}

async fn connect_tcp(address: &Address) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Tls {
    /// Reads the certificates.
    pub(super) fn new(options: &TlsOptions) -> Result<Self, StoreError> {
        // The provider is named, so that nothing depends on which one the process has installed, if any.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| StoreError::Options(error.to_string()))?
            .with_root_certificates(roots(options.ca.as_deref())?);
        let config = match &options.client {
            None => builder.with_no_client_auth(),
            Some(client) => {
                let chain = certificates(&client.chain, "client certificate")?;
                let key = PrivateKeyDer::from_pem_slice(client.key.expose_secret().as_bytes())
                    .map_err(|error| StoreError::Options(format!("client key: {error}")))?;
                let with_client = builder.with_client_auth_cert(chain, key);
                with_client
                    .map_err(|error| StoreError::Options(format!("client certificate: {error}")))?
            }
        };
        let name = options.server_name.as_deref().map(server_name).transpose()?;
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name })
    }

    fn name(&self, host: &str) -> Result<ServerName<'static>, StoreError> {
        self.name.clone().map_or_else(|| server_name(host), Ok)
    }
}

fn server_name(name: &str) -> Result<ServerName<'static>, StoreError> {
    ServerName::try_from(name.to_owned()).map_err(|error| {
        StoreError::Options(format!("the name that its certificate should carry: {error}"))
    })
}

/// The roots are read once: the library would read the system's again for every connection, in the middle of an outage.
fn roots(ca: Option<&[u8]>) -> Result<RootCertStore, StoreError> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(pem) => {
            for certificate in certificates(pem, "CA")? {
                roots
                    .add(certificate)
                    .map_err(|error| StoreError::Options(format!("CA: {error}")))?;
            }
        }
        None => {
            // One certificate that cannot be read does not make the others worse.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(StoreError::Options("no CA certificate to trust".to_owned()));
    }
    Ok(roots)
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = read.map_err(|error| StoreError::Options(format!("{what}: {error}")))?;
    if certificates.is_empty() {
        return Err(StoreError::Options(format!("{what}: holds no certificate")));
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    async fn linked() -> (Link, DuplexStream) {
        let (ours, server) = duplex(1024);
        let place = Place::Unix(PathBuf::new());
        (Dialer::new(None, 0, None).log_in(ours, &place).await.unwrap(), server)
    }

    /// Asks two things at once; the server answers with `said` once both have come.
    async fn ask_two(link: &Link, server: &mut DuplexStream, said: &[u8]) -> [bool; 2] {
        let (mut one, mut other) = (link.connection.clone(), link.connection.clone());
        let ping = redis::cmd("PING");
        let answering = async {
            let mut both = vec![0; 2 * ping.get_packed_command().len()];
            server.read_exact(&mut both).await.unwrap();
            server.write_all(said).await.unwrap();
        };
        let (one, other, ()) = tokio::join!(
            ping.query_async::<String>(&mut one),
            ping.query_async::<String>(&mut other),
            answering
        );
        [one.is_ok_and(|text| text == "1"), other.is_ok_and(|text| text == "2")]
    }

    /// The library keeps what it had read of a value when it meets an error, and would go on from there: but nobody is
    /// given anything that it reads then, and the connection is given up.
    #[tokio::test]
    async fn nobody_is_answered_behind_what_is_no_reply() {
        for junk in [
            &b"\xa1\xa1"[..],
            b"*2\r\n\xa1\xa1",
            b":x\r\n",
            b"$1\r\naXX",
            b"*x\r\n",
            b"HTTP/1.1 400 \r\n",
        ] {
            let (link, mut server) = linked().await;
            let said = [junk, b"+1\r\n+2\r\n"].concat();
            assert_eq!(ask_two(&link, &mut server, &said).await, [false, false], "{junk:?}");
            assert!(link.is_closed(), "{junk:?}");
        }
        let (link, mut server) = linked().await;
        assert_eq!(ask_two(&link, &mut server, b"+1\r\n\xa1\xa1+2\r\n").await, [true, false]);
        assert!(link.is_closed());
    }

    /// A byte that begins no value, alone at the end of a read, is taken for the begin of more, and skipped (combine 4.6,
    /// `parse_committed`). What is read behind it are the values that were sent, each in its place.
    #[tokio::test]
    async fn a_skipped_byte_puts_no_reply_in_another_ones_place() {
        let (link, mut server) = linked().await;
        server.write_all(b"\xa1").await.unwrap();
        tokio::task::yield_now().await;
        assert_eq!(ask_two(&link, &mut server, b"+1\r\n+2\r\n").await, [true, true]);
        assert!(!link.is_closed());
    }
}
