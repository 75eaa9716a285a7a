//! The connection to the server: lazily opened HTTP/2, with TLS and the API key if configured.
//!
//! Uses the generated stubs on its own channel instead of the client's `Qdrant` type, which automatically resends a
//! failed write. Each failed call is returned once; only the stages decide whether and when to retry.

use std::time::Duration;

use qdrant_client::qdrant::collections_client::CollectionsClient;
use qdrant_client::qdrant::points_client::PointsClient;
use qdrant_client::qdrant::qdrant_client::QdrantClient;
use tidewheel_core::address;
use tidewheel_core::error::{PortError, with_causes};
use tidewheel_core::secret::Secret;
use tidewheel_core::tls::ClientTls;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Uri};
use tonic::{Request, Status};

use super::redirect::Redirects;

/// Qdrant's default gRPC port.
const GRPC_PORT: u16 = 6334;

/// Keep-alive interval of an idle connection, so that one silently dropped by a firewall is detected before use.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Responses may be of any size: requests for pages and searches bound them.
const MAX_RESPONSE: usize = usize::MAX;

type Service = InterceptedService<Redirects<Channel>, ApiKey>;

/// A connection that opens on the first call and reopens whenever it breaks.
#[derive(Clone)]
pub(super) struct Connection {
    service: Service,
}

impl Connection {
    /// Does not connect yet. Must be called within a Tokio runtime.
    pub(super) fn new(
        url: &str,
        api_key: Option<&Secret>,
        files: &ClientTls,
        connect_timeout: Duration,
        timeout: Duration,
    ) -> Result<Self, PortError> {
        let uri = address(url)?;
        let tls = uri.scheme_str() == Some("https");
        let mut endpoint = Endpoint::from(uri)
            .connect_timeout(connect_timeout)
            .timeout(timeout)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        if tls {
            endpoint = endpoint.tls_config(tls_config(files)?).map_err(|error| {
                PortError::fatal(format!("failed to set up TLS for qdrant.url: {}", with_causes(&error)))
            })?;
        } else if files.is_set() {
            return Err(PortError::fatal("qdrant.ca_file or qdrant.cert_file is set, but qdrant.url does not use TLS")
                .with_hint("use https:// in qdrant.url, or remove qdrant.ca_file and qdrant.cert_file"));
        }
        let key = api_key.map(ApiKey::header).transpose()?;
        Ok(Self { service: InterceptedService::new(Redirects(endpoint.connect_lazy()), ApiKey(key)) })
    }

    pub(super) fn points(&self) -> PointsClient<Service> {
        PointsClient::new(self.service.clone()).max_decoding_message_size(MAX_RESPONSE)
    }

    pub(super) fn collections(&self) -> CollectionsClient<Service> {
        CollectionsClient::new(self.service.clone())
    }

    pub(super) fn server(&self) -> QdrantClient<Service> {
        QdrantClient::new(self.service.clone())
    }
}

/// Trusts the public CAs, or only a private one.
fn tls_config(files: &ClientTls) -> Result<ClientTlsConfig, PortError> {
    let pem = files.read("qdrant.")?;
    let config = match pem.ca {
        Some(ca) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)),
        None => ClientTlsConfig::new().with_enabled_roots(),
    };
    Ok(match pem.identity {
        Some((cert, key)) => config.identity(Identity::from_pem(cert, key)),
        None => config,
    })
}

/// Parses `http://host:6334` or `https://host:6334`; the scheme defaults to http, the port to 6334.
pub(super) fn address(url: &str) -> Result<Uri, PortError> {
    if url.contains('@') {
        return Err(
            PortError::fatal("qdrant.url must not contain a user or password").with_hint("set qdrant.api_key instead")
        );
    }
    let invalid = |cause: &str| {
        let (shown, cause) = (address::shown(url, crate::ADDRESSES), address::scrubbed(cause, url, crate::ADDRESSES));
        PortError::fatal(format!("invalid qdrant.url {shown:?}: {cause}"))
            .with_hint("set qdrant.url to http://host:6334 or https://host:6334")
    };
    let with_scheme = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let uri: Uri = with_scheme.parse().map_err(|error| invalid(&format!("{error}")))?;
    let scheme = uri.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https"));
    let scheme = scheme.ok_or_else(|| invalid("scheme must be http or https"))?;
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| invalid("missing host"))?;
    if uri.query().is_some() || !matches!(uri.path(), "" | "/") {
        return Err(invalid("a gRPC address has no path or query; set an API key in qdrant.api_key"));
    }
    // An invalid port or a fragment: the client would drop it, and messages would repeat it.
    if address::holds_secret(&with_scheme, crate::ADDRESSES) {
        return Err(invalid("expected only a host and a port"));
    }
    let port = uri.port_u16().unwrap_or(GRPC_PORT);
    Uri::builder()
        .scheme(scheme)
        .authority(format!("{host}:{port}"))
        .path_and_query("/")
        .build()
        .map_err(|error| invalid(&error.to_string()))
}

/// Adds the API key to every call.
#[derive(Clone)]
pub(super) struct ApiKey(Option<MetadataValue<Ascii>>);

impl ApiKey {
    fn header(key: &Secret) -> Result<MetadataValue<Ascii>, PortError> {
        let mut value: MetadataValue<Ascii> = key.reveal().parse().map_err(|_| {
            PortError::fatal("qdrant.api_key contains invalid characters")
                .with_hint("check it for a trailing line break")
        })?;
        // Also keeps it out of the debug output of requests.
        value.set_sensitive(true);
        Ok(value)
    }
}

impl Interceptor for ApiKey {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(key) = &self.0 {
            request.metadata_mut().insert("api-key", key.clone());
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_defaults_scheme_and_port() {
        for (given, meant) in [
            ("http://localhost:6334", "http://localhost:6334/"),
            ("localhost", "http://localhost:6334/"),
            ("qdrant:7000", "http://qdrant:7000/"),
            ("https://a.cloud.example", "https://a.cloud.example:6334/"),
            ("https://a.cloud.example:443/", "https://a.cloud.example:443/"),
            ("http://[::1]", "http://[::1]:6334/"),
        ] {
            assert_eq!(address(given).unwrap().to_string(), meant);
        }
    }

    #[test]
    fn invalid_address_error_redacts_credentials() {
        for wrong in ["", "redis://localhost", "http://", "http://a b"] {
            assert!(address(wrong).is_err(), "{wrong:?}");
        }
        for wrong in [
            "http://user:hunter2@host",
            "ftp://user:hunter2@host",
            "http://hunter2@ho st",
            "https://host/?api-key=hunter2",
            "https://host:hunter2",
            "https://host:6334#hunter2",
            "hunter2://host",
        ] {
            let error = address(wrong).unwrap_err();
            assert!(!format!("{error:?}").contains("hunter2"), "{wrong}");
        }
    }

    #[tokio::test]
    async fn api_key_is_sent_and_redacted_in_debug_output() {
        let key = ApiKey(Some(ApiKey::header(&Secret::new("hunter2")).unwrap()));
        let request = key.clone().call(Request::new(())).unwrap();
        assert_eq!(request.metadata().get("api-key").unwrap().to_str().unwrap(), "hunter2");
        assert!(!format!("{request:?}").contains("hunter2"));
        let error = ApiKey::header(&Secret::new("hunter2\n")).unwrap_err();
        assert!(!format!("{error:?}").contains("hunter2"));
    }
}
