//! Certificates for tests of TLS: a private CA, a server, a client, and a client of another CA.

use std::io;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// A CA that signs certificates for servers on this machine and for clients, as PEM files in a directory.
pub struct Certificates {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// A signed certificate and its key.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The certificate.
    pub cert_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,
    /// Both in one file, as MongoDB requires.
    pub both_file: PathBuf,
}

impl Certificates {
    /// Creates a CA in this directory.
    ///
    /// # Errors
    /// If the directory is not writable.
    pub fn new(dir: &Path, name: &str) -> io::Result<Self> {
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let mut params = CertificateParams::new(Vec::new()).map_err(io::Error::other)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let dir = dir.join(name);
        std::fs::create_dir_all(&dir)?;
        let ca = params.self_signed(&key).map_err(io::Error::other)?;
        std::fs::write(dir.join("ca.pem"), ca.pem())?;
        Ok(Self { dir, issuer: Issuer::new(params, key) })
    }

    /// The CA's own certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// Signs a server and client certificate for `localhost` and `127.0.0.1`. Replaces one of the same name.
    ///
    /// # Errors
    /// If the directory is not writable.
    pub fn sign(&self, name: &str) -> io::Result<Signed> {
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).map_err(io::Error::other)?;
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let cert = params.signed_by(&key, &self.issuer).map_err(io::Error::other)?;
        let file = |suffix: &str| self.dir.join(format!("{name}{suffix}.pem"));
        let signed = Signed { cert_file: file(""), key_file: file("-key"), both_file: file("-both") };
        std::fs::write(&signed.cert_file, cert.pem())?;
        std::fs::write(&signed.key_file, key.serialize_pem())?;
        std::fs::write(&signed.both_file, format!("{}{}", cert.pem(), key.serialize_pem()))?;
        Ok(signed)
    }
}
