//! The way to the server: one lazily opened HTTP/2 connection, with TLS and the API key where they are wanted.
//!
//! The generated stubs are used on a channel of our own instead of the client's `Qdrant` type, because that one sends a
//! failed write a second time by itself. A failed call is reported here, once; whether and when it is tried again is
//! decided by the stages alone.

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

/// Where Qdrant serves gRPC unless configured otherwise.
const GRPC_PORT: u16 = 6334;

/// How often an idle connection is probed, so that one that a firewall has silently cut is noticed before it is used.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Answers may be of any size: pages and searches are bounded by what they ask for.
const LARGEST_ANSWER: usize = usize::MAX;

type Service = InterceptedService<Redirects<Channel>, ApiKey>;

/// A connection that is opened by the first call and opened again whenever it breaks.
#[derive(Clone)]
pub(super) struct Connection {
    service: Service,
}

impl Connection {
    /// Nothing is sent yet. Must be called within a Tokio runtime.
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
            return Err(PortError::fatal("qdrant.ca_file or qdrant.cert_file is set, but Qdrant is used without TLS")
                .with_hint("write qdrant.url with https://, or remove qdrant.ca_file and qdrant.cert_file"));
        }
        let key = api_key.map(ApiKey::header).transpose()?;
        Ok(Self { service: InterceptedService::new(Redirects(endpoint.connect_lazy()), ApiKey(key)) })
    }

    pub(super) fn points(&self) -> PointsClient<Service> {
        PointsClient::new(self.service.clone()).max_decoding_message_size(LARGEST_ANSWER)
    }

    pub(super) fn collections(&self) -> CollectionsClient<Service> {
        CollectionsClient::new(self.service.clone())
    }

    pub(super) fn server(&self) -> QdrantClient<Service> {
        QdrantClient::new(self.service.clone())
    }
}

/// Trusts the public CAs, or a private one alone.
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

/// `http://host:6334`, `https://host:6334`; without a scheme it is http, without a port 6334.
pub(super) fn address(url: &str) -> Result<Uri, PortError> {
    if url.contains('@') {
        return Err(PortError::fatal("qdrant.url must not hold a user or a password").with_hint("use qdrant.api_key"));
    }
    let invalid = |cause: &str| {
        let (shown, cause) = (address::shown(url), address::scrubbed(cause, url));
        PortError::fatal(format!("invalid qdrant.url {shown:?}: {cause}"))
            .with_hint("write it as http://host:6334 or https://host:6334")
    };
    let with_scheme = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let uri: Uri = with_scheme.parse().map_err(|error| invalid(&format!("{error}")))?;
    let scheme = uri.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https"));
    let scheme = scheme.ok_or_else(|| invalid("the scheme must be http or https"))?;
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| invalid("there is no host"))?;
    if uri.query().is_some() || !matches!(uri.path(), "" | "/") {
        return Err(invalid("gRPC has no path and no query; an API key goes into qdrant.api_key"));
    }
    // A port that is no number, a fragment: the client would leave it out, and messages would repeat it.
    if address::holds_secret(&with_scheme) {
        return Err(invalid("there is more than a host and a port"));
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
            PortError::fatal("qdrant.api_key holds characters that no API key has")
                .with_hint("is there a line break at its end?")
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
    fn addresses_are_completed() {
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
    fn what_is_no_address_is_refused_without_repeating_a_password() {
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
    async fn the_key_is_sent_and_never_shown() {
        let key = ApiKey(Some(ApiKey::header(&Secret::new("hunter2")).unwrap()));
        let request = key.clone().call(Request::new(())).unwrap();
        assert_eq!(request.metadata().get("api-key").unwrap().to_str().unwrap(), "hunter2");
        assert!(!format!("{request:?}").contains("hunter2"));
        let error = ApiKey::header(&Secret::new("hunter2\n")).unwrap_err();
        assert!(!format!("{error:?}").contains("hunter2"));
    }
}
