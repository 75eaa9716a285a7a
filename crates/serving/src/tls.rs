//! Server TLS: the server certificate and client certificate verification.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio_rustls::TlsAcceptor;

/// The PEM files of a server's TLS configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain.
    pub cert_file: Option<PathBuf>,
    /// The private key.
    pub key_file: Option<PathBuf>,
    /// CA of client certificates. Without it, clients need no certificate.
    pub client_ca_file: Option<PathBuf>,
}

/// An invalid TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A required setting is missing.
    #[error("{table}.{key} is not set, but {table}.{given} is")]
    Incomplete {
        /// The settings table.
        table: &'static str,
        /// The missing setting.
        key: &'static str,
        /// A setting that is set.
        given: &'static str,
    },
    /// A file cannot be read or has invalid content.
    #[error("failed to read {table}.{key} {}: {cause}", path.display())]
    File {
        /// The settings table.
        table: &'static str,
        /// The setting.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        cause: String,
    },
    /// The key does not match the certificate.
    #[error("failed to set up TLS with {table}.cert_file and {table}.key_file: {cause}")]
    Mismatch {
        /// The settings table.
        table: &'static str,
        /// The cause.
        cause: String,
    },
}

/// TLS configuration of a server, reloaded when its files change.
pub struct Tls {
    table: &'static str,
    files: TlsFiles,
    current: RwLock<Current>,
}

struct Current {
    acceptor: TlsAcceptor,
    stamp: Vec<Option<(SystemTime, u64)>>,
}

impl Tls {
    /// Loads the files of the settings table `table`; `None` if none is set.
    ///
    /// # Errors
    /// A file is missing or unreadable, or the key does not match the certificate.
    pub fn load(table: &'static str, files: &TlsFiles) -> Result<Option<Self>, TlsError> {
        if *files == TlsFiles::default() {
            return Ok(None);
        }
        let current = RwLock::new(read(table, files)?);
        Ok(Some(Self { table, files: files.clone(), current }))
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.current.read().unwrap_or_else(PoisonError::into_inner).acceptor.clone()
    }

    /// Reloads changed files. While they are invalid, the previous ones stay in use.
    pub(crate) fn reload_if_changed(&self) {
        let stamp = stamp(&self.files);
        if self.current.read().unwrap_or_else(PoisonError::into_inner).stamp == stamp {
            return;
        }
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        match read(self.table, &self.files) {
            Ok(new) => {
                *current = new;
                tracing::info!("reloaded {}.cert_file", self.table);
            }
            Err(error) => {
                // Logged once for each change of the files.
                current.stamp = stamp;
                tracing::warn!("{error}; the previous certificate stays in use");
            }
        }
    }
}

/// Returns modification time and size of each file, to detect changes.
fn stamp(files: &TlsFiles) -> Vec<Option<(SystemTime, u64)>> {
    let of = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    [&files.cert_file, &files.key_file, &files.client_ca_file].into_iter().flatten().map(of).collect()
}

fn read(table: &'static str, files: &TlsFiles) -> Result<Current, TlsError> {
    let stamp = stamp(files);
    let given =
        [("cert_file", &files.cert_file), ("key_file", &files.key_file), ("client_ca_file", &files.client_ca_file)];
    let set = given.iter().find(|(_, file)| file.is_some()).map_or("cert_file", |(name, _)| *name);
    let missing = |key| TlsError::Incomplete { table, key, given: set };
    let cert_file = files.cert_file.as_deref().ok_or_else(|| missing("cert_file"))?;
    let key_file = files.key_file.as_deref().ok_or_else(|| missing("key_file"))?;
    let chain = certificates(table, "cert_file", cert_file)?;
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|cause| TlsError::File {
        table,
        key: "key_file",
        path: key_file.to_owned(),
        cause: cause.to_string(),
    })?;
    let provider = Arc::new(ring::default_provider());
    let mismatch = |cause: &dyn std::fmt::Display| TlsError::Mismatch { table, cause: cause.to_string() };
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|cause| mismatch(&cause))?;
    let builder = match files.client_ca_file.as_deref() {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            let invalid = |cause: &dyn std::fmt::Display| TlsError::File {
                table,
                key: "client_ca_file",
                path: path.to_owned(),
                cause: cause.to_string(),
            };
            for certificate in certificates(table, "client_ca_file", path)? {
                roots.add(certificate).map_err(|cause| invalid(&cause))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|cause| invalid(&cause))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|cause| mismatch(&cause))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Current { acceptor: TlsAcceptor::from(Arc::new(config)), stamp })
}

fn certificates(table: &'static str, key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |cause: String| TlsError::File { table, key, path: path.to_owned(), cause };
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<_, _>>)
        .map_err(|cause| failed(cause.to_string()))?;
    if certificates.is_empty() {
        return Err(failed("no PEM certificate found".to_owned()));
    }
    Ok(certificates)
}
