//! Reports redirects of a proxy in front of Qdrant: gRPC has no redirects, and its client only reports a missing
//! status.

use std::task::{Context, Poll};

use tidewheel_core::address;
use tonic::Status;
use tonic::codegen::http::{HeaderMap, Request, Response, StatusCode, header};
use tonic::codegen::{BoxFuture, Service};

/// Prefix of the error message.
pub(super) const REDIRECTS: &str = "redirected to ";

/// Converts a redirect into a gRPC status that names its target.
#[derive(Clone)]
pub(super) struct Redirects<S>(pub(super) S);

impl<S, A, B> Service<Request<A>> for Redirects<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<S::Response, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let response = self.0.call(request);
        Box::pin(async move {
            let mut response = response.await?;
            if let Some(status) = status(response.status(), response.headers()) {
                // Fails only for a message that is invalid in a header; this one is encoded.
                let _ = status.add_header(response.headers_mut());
            }
            Ok(response)
        })
    }
}

fn status(status: StatusCode, headers: &HeaderMap) -> Option<Status> {
    if !status.is_redirection() {
        return None;
    }
    let location = headers.get(header::LOCATION).and_then(|location| location.to_str().ok());
    let target = match location {
        Some(location) if location.contains("://") => address::shown(location, crate::ADDRESSES),
        Some(_) => "another path of the same server".to_owned(),
        None => "an unspecified address".to_owned(),
    };
    Some(Status::failed_precondition(format!("{REDIRECTS}{target} ({})", status.as_u16())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirect_status_names_target() {
        let message = |code: StatusCode, location: &str| {
            let headers = [(header::LOCATION, location.parse().unwrap())].into_iter().collect();
            status(code, &headers).map(|status| status.message().to_owned())
        };
        let moved = StatusCode::PERMANENT_REDIRECT;
        assert_eq!(
            message(moved, "https://qdrant.example.com/?key=s3cret").unwrap(),
            "redirected to https://qdrant.example.com/?*** (308)"
        );
        assert_eq!(message(moved, "/login").unwrap(), "redirected to another path of the same server (308)");
        assert_eq!(message(StatusCode::OK, "/x"), None);
    }
}
