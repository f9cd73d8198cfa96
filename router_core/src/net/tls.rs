//! Client TLS: the system's or a mounted set of certificate authorities.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::{Error, Kind, Result, Step};

/// Makes TLS connections with one trust store and one ALPN choice.
#[derive(Clone)]
pub struct Tls {
    connector: TlsConnector,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Loads the authorities of `ca` (PEM), or the system's; offers `h2` or `http/1.1`.
    pub fn load(ca: Option<&Path>, h2: bool) -> Result<Self> {
        let roots = match ca {
            Some(path) => mounted(path)?,
            None => system()?,
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| Error::new(Kind::Config, format!("TLS: {e}")))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![if h2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        Ok(Self { connector: TlsConnector::from(Arc::new(config)) })
    }

    /// Shakes hands as a client of `host`. Dropping the future closes the connection.
    pub async fn connect(&self, host: &str, tcp: TcpStream) -> Result<TlsStream<TcpStream>> {
        let refused = |e: &dyn std::fmt::Display| {
            Error::new(Kind::Upstream(Step::Tls), format!("TLS with {host}: {e}"))
        };
        let name = ServerName::try_from(host.to_owned()).map_err(|e| refused(&e))?;
        self.connector.connect(name, tcp).await.map_err(|e| refused(&e))
    }
}

fn mounted(path: &Path) -> Result<RootCertStore> {
    let wrong = |e: String| {
        Error::new(
            Kind::Config,
            format!("UPSTREAM_CA_FILE {}: {e}; it takes a PEM file of certificates", path.display()),
        )
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| wrong(e.to_string()))? {
        let certificate = certificate.map_err(|e| wrong(e.to_string()))?;
        roots.add(certificate).map_err(|e| wrong(e.to_string()))?;
    }
    if roots.is_empty() { Err(wrong("no certificate in it".to_owned())) } else { Ok(roots) }
}

fn system() -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(Error::new(
            Kind::Config,
            "no system certificate authorities: install ca-certificates or set UPSTREAM_CA_FILE",
        ));
    }
    Ok(roots)
}
