//! TLS files for outgoing connections: a private CA and a client certificate.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::PortError;
use crate::ports::PortResult;

/// Paths of the files, all in PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// The CA to trust instead of the public ones.
    pub ca_file: Option<PathBuf>,
    /// The certificate to present.
    pub cert_file: Option<PathBuf>,
    /// Its private key.
    pub key_file: Option<PathBuf>,
}

/// The contents of the files.
#[derive(Clone, Default)]
pub struct Pem {
    /// The CA to trust instead of the public ones.
    pub ca: Option<Vec<u8>>,
    /// The certificate to present, and its private key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pem").field("ca", &self.ca.is_some()).field("identity", &self.identity.is_some()).finish()
    }
}

impl ClientTls {
    /// Whether any file is set.
    pub fn is_set(&self) -> bool {
        *self != Self::default()
    }

    /// Reads the files. `prefix` is the prefix of their settings: `redis.`, `monitor.webhook_`.
    ///
    /// # Errors
    /// Fatal, if a file is unreadable or invalid, or one of certificate and key is missing.
    pub fn read(&self, prefix: &str) -> PortResult<Pem> {
        let ca = self.ca_file.as_deref().map(|path| read(prefix, "ca_file", path, "CERTIFICATE")).transpose()?;
        let identity = match (self.cert_file.as_deref(), self.key_file.as_deref()) {
            (Some(cert), Some(key)) => {
                let cert = read(prefix, "cert_file", cert, "CERTIFICATE")?;
                Some((cert, read(prefix, "key_file", key, "PRIVATE KEY")?))
            }
            (None, None) => None,
            (Some(_), None) => return Err(incomplete(prefix, "cert_file", "key_file")),
            (None, Some(_)) => return Err(incomplete(prefix, "key_file", "cert_file")),
        };
        Ok(Pem { ca, identity })
    }
}

fn incomplete(prefix: &str, set: &str, missing: &str) -> PortError {
    PortError::fatal(format!("missing {prefix}{missing}: {prefix}{set} is set"))
        .with_hint(format!("set {prefix}{missing} too; one file may contain both certificate and key"))
}

fn read(prefix: &str, key: &str, path: &Path, label: &str) -> PortResult<Vec<u8>> {
    let failed = |cause: &str| {
        PortError::fatal(format!("failed to read {prefix}{key} {}: {cause}", path.display()))
            .with_hint(format!("set {prefix}{key} to a PEM file"))
    };
    let bytes = std::fs::read(path).map_err(|error| failed(&error.to_string()))?;
    let text = String::from_utf8_lossy(&bytes);
    let begins = |line: &str| line.starts_with("-----BEGIN ") && line.trim_end().ends_with(&format!("{label}-----"));
    if text.lines().any(begins) { Ok(bytes) } else { Err(failed(&format!("no PEM block {label} found"))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorClass;

    fn file(content: &str) -> PathBuf {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tidewheel-tls-{}-{}.pem", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    const CERT: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    const KEY: &str = "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n";

    #[test]
    fn certificate_and_key_are_read_from_two_files_or_one() {
        let (cert, key, both) = (file(CERT), file(KEY), file(&format!("{CERT}{KEY}")));
        for (cert_file, key_file) in [(&cert, &key), (&both, &both)] {
            let (cert_file, key_file) = (Some(cert_file.clone()), Some(key_file.clone()));
            let tls = ClientTls { ca_file: Some(cert.clone()), cert_file, key_file };
            let pem = tls.read("redis.").unwrap();
            assert!(pem.ca.is_some() && pem.identity.is_some());
            assert!(!format!("{pem:?}").contains("AAAA"));
        }
        assert!(ClientTls::default().read("redis.").unwrap().identity.is_none());
    }

    #[test]
    fn invalid_file_error_names_the_setting_and_never_quotes_content() {
        let (cert, secret) = (file(CERT), file("hunter2"));
        let some = |path: &Path| Some(path.to_owned());
        for (tls, setting) in [
            (ClientTls { ca_file: Some("/does/not/exist".into()), ..ClientTls::default() }, "redis.ca_file"),
            (ClientTls { ca_file: some(&secret), ..ClientTls::default() }, "redis.ca_file"),
            (ClientTls { cert_file: some(&cert), ..ClientTls::default() }, "redis.key_file"),
            (ClientTls { key_file: some(&cert), ..ClientTls::default() }, "redis.cert_file"),
            (ClientTls { ca_file: None, cert_file: some(&cert), key_file: some(&cert) }, "redis.key_file"),
            (ClientTls { ca_file: None, cert_file: some(&cert), key_file: some(&secret) }, "redis.key_file"),
        ] {
            let error = tls.read("redis.").unwrap_err();
            assert_eq!(error.class, ErrorClass::Fatal);
            assert!(error.message.contains(setting), "{error:?}");
            assert!(!format!("{error:?}").contains("hunter2"));
        }
    }
}
