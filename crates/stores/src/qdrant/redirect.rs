//! Redirects of a proxy before Qdrant, by name: gRPC knows no redirects, and its client reports a missing status only.

use std::task::{Context, Poll};

use tidewheel_core::address;
use tonic::Status;
use tonic::codegen::http::{HeaderMap, Request, Response, StatusCode, header};
use tonic::codegen::{BoxFuture, Service};

/// What the message of such a failure begins with.
pub(super) const REDIRECTS: &str = "it redirects to ";

/// Turns a redirect into a status of gRPC that names where it leads.
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
        let answer = self.0.call(request);
        Box::pin(async move {
            let mut answer = answer.await?;
            if let Some(status) = status(answer.status(), answer.headers()) {
                // Fails only for a message that no header can hold; this one is encoded.
                let _ = status.add_header(answer.headers_mut());
            }
            Ok(answer)
        })
    }
}

fn status(status: StatusCode, headers: &HeaderMap) -> Option<Status> {
    if !status.is_redirection() {
        return None;
    }
    let location = headers.get(header::LOCATION).and_then(|location| location.to_str().ok());
    let target = match location {
        Some(location) if location.contains("://") => address::shown(location),
        Some(_) => "another path of the same server".to_owned(),
        None => "an unnamed address".to_owned(),
    };
    Some(Status::failed_precondition(format!("{REDIRECTS}{target} ({})", status.as_u16())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirect_becomes_a_status_that_names_its_target() {
        let message = |code: StatusCode, location: &str| {
            let headers = [(header::LOCATION, location.parse().unwrap())].into_iter().collect();
            status(code, &headers).map(|status| status.message().to_owned())
        };
        let moved = StatusCode::PERMANENT_REDIRECT;
        assert_eq!(
            message(moved, "https://qdrant.example.com/?key=s3cret").unwrap(),
            "it redirects to https://qdrant.example.com/?*** (308)"
        );
        assert_eq!(message(moved, "/login").unwrap(), "it redirects to another path of the same server (308)");
        assert_eq!(message(StatusCode::OK, "/x"), None);
    }
}
