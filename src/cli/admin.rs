//! How commands ask a gateway's admin listener: plain or over TLS, with a token or a client certificate.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::cli::exit::{Exit, Failure};
use crate::cli::sender::Trust;

/// No page of a gateway is larger.
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What to show the admin listener, and how to know it. It has no `Debug`: there is a secret in it.
#[derive(clap::Args)]
pub struct Access {
    /// File that holds the admin token
    #[arg(long, value_name = "FILE", env = "ONCEHOOK_ADMIN__TOKEN_FILE", hide_env_values = true)]
    token_file: Option<PathBuf>,
    /// The token itself. Not shown in the help: other users of this machine can read a command line, and so it belongs
    /// into the environment.
    #[arg(long, hide = true, env = "ONCEHOOK_ADMIN__TOKEN", hide_env_values = true)]
    token: Option<SecretString>,
    /// Ask over TLS; trust what an authority in this PEM file has signed
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// The name that the listener's certificate is checked against, instead of the address
    #[arg(long, value_name = "NAME", requires = "ca_file")]
    server_name: Option<String>,
    /// Client certificate, PEM
    #[arg(long, value_name = "FILE", requires_all = ["ca_file", "key_file"])]
    certificate_file: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, value_name = "FILE", requires = "certificate_file")]
    key_file: Option<PathBuf>,
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum Silence {
    /// Nobody listens there.
    #[error("cannot connect")]
    Connect(#[from] io::Error),
    /// It is no HTTP, or it broke off.
    #[error("no answer")]
    Http(#[from] hyper::Error),
    /// It took too long.
    #[error("no answer within {} s", .0.as_secs_f64())]
    Timeout(Duration),
    /// The page is larger than any.
    #[error("the answer has no end")]
    TooLarge,
}

impl Access {
    /// The page at `path`, with its status, within `patience`.
    pub async fn page(
        &self,
        address: SocketAddr,
        path: &str,
        patience: Duration,
    ) -> Result<(StatusCode, Vec<u8>), Failure> {
        let scheme = if self.ca_file.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{address}{path}");
        let request =
            self.request(address, path).map_err(|error| Failure::new(Exit::NoInput, error))?;
        let tls = self.tls(address).map_err(|error| Failure::new(Exit::NoInput, error))?;
        let asking = async {
            let stream = TcpStream::connect(address).await?;
            match tls {
                None => ask(stream, request).await,
                Some((config, name)) => {
                    let connector = TlsConnector::from(Arc::new(config));
                    ask(connector.connect(name, stream).await?, request).await
                }
            }
        };
        let asked = tokio::time::timeout(patience, asking).await;
        asked.unwrap_or(Err(Silence::Timeout(patience))).map_err(|error| {
            Failure::new(Exit::Unavailable, anyhow::Error::new(error).context(url))
                .with_hint("is the gateway running, and is this the address of its admin listener?")
        })
    }

    fn request(&self, address: SocketAddr, path: &str) -> anyhow::Result<Request<Empty<Bytes>>> {
        let mut request = Request::get(path).body(Empty::new())?;
        request.headers_mut().insert(HOST, address.to_string().parse()?);
        if let Some(token) = self.token()? {
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose_secret()))
                .ok()
                .context("the admin token has a character that cannot stand in a header")?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        Ok(request)
    }

    /// The file goes before the variable, as a flag does.
    fn token(&self) -> anyhow::Result<Option<SecretString>> {
        let Some(path) = &self.token_file else {
            let said = self.token.as_ref().filter(|token| !token.expose_secret().is_empty());
            return Ok(said.cloned());
        };
        let text = SecretString::from(
            fs::read_to_string(path)
                .with_context(|| format!("cannot read the admin token from {}", path.display()))?,
        );
        let token = text.expose_secret().trim_end_matches(['\r', '\n']);
        anyhow::ensure!(!token.is_empty(), "{} is empty", path.display());
        Ok(Some(SecretString::from(token)))
    }

    fn tls(
        &self,
        address: SocketAddr,
    ) -> anyhow::Result<Option<(ClientConfig, ServerName<'static>)>> {
        let Some(ca) = &self.ca_file else { return Ok(None) };
        let trusting = Trust::Authority(ca.clone()).trusting()?;
        let config = match (&self.certificate_file, &self.key_file) {
            (Some(certificate), Some(key)) => {
                let chain = certificates(certificate)?;
                // What the parser says may quote the file.
                let key = PrivateKeyDer::from_pem_file(key)
                    .map_err(|_| anyhow::anyhow!("{} holds no private key", key.display()))?;
                trusting.with_client_auth_cert(chain, key)?
            }
            _ => trusting.with_no_client_auth(),
        };
        let name = match &self.server_name {
            Some(name) => ServerName::try_from(name.clone())
                .with_context(|| format!("{name:?} is no host name and no address"))?,
            None => ServerName::from(address.ip()),
        };
        Ok(Some((config, name)))
    }
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
    read().with_context(|| format!("cannot read certificates from {}", path.display()))
}

async fn ask<T>(stream: T, request: Request<Empty<Bytes>>) -> Result<(StatusCode, Vec<u8>), Silence>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let answering = async {
        let answer = sender.send_request(request).await?;
        Ok((answer.status(), whole(answer.into_body()).await?))
    };
    let mut answering = std::pin::pin!(answering);
    tokio::select! {
        answer = &mut answering => answer,
        // It may end as soon as all is read from it.
        ended = connection => match ended {
            Ok(()) => answering.await,
            Err(error) => Err(error.into()),
        },
    }
}

async fn whole(mut body: Incoming) -> Result<Vec<u8>, Silence> {
    let mut all = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if all.len() + data.len() > PAGE_BYTES_MAX {
            return Err(Silence::TooLarge);
        }
        all.extend_from_slice(&data);
    }
    Ok(all)
}
