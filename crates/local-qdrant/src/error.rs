//! One error type for both APIs, with Qdrant's messages and status codes.

use axum::http::StatusCode;
use qdrant_edge::OperationError;
use tonic::{Code, Status};

/// A request error. The messages are Qdrant's, so that clients that match on them work unchanged.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ApiError {
    /// The collection, alias or point does not exist: 404 and `NotFound`.
    #[error("Not found: {0}")]
    NotFound(String),
    /// The name is in use: 409 and `AlreadyExists`.
    #[error("Wrong input: {0}")]
    AlreadyExists(String),
    /// The request is invalid for this collection: 400 and `InvalidArgument`.
    #[error("Wrong input: {0}")]
    BadInput(String),
    /// The body is invalid for the endpoint: 400 and `InvalidArgument`.
    #[error("Format error in JSON body: {0}")]
    BadBody(String),
    /// A feature of Qdrant's API that the local server does not support: 501 and `Unimplemented`.
    #[error("unsupported by tidewheel's local Qdrant: {0}; use a Qdrant server")]
    Unsupported(String),
    /// The server is shutting down: 503 and `Unavailable`, so that clients retry.
    #[error("the server is shutting down")]
    Stopping,
    /// The disk or the engine failed: 500 and `Internal`.
    #[error("Service internal error: {0}")]
    Internal(String),
}

impl ApiError {
    pub(crate) fn no_collection(name: &str) -> Self {
        Self::NotFound(format!("Collection `{name}` doesn't exist!"))
    }

    pub(crate) fn http_status(&self) -> StatusCode {
        match self {
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::AlreadyExists(_) => StatusCode::CONFLICT,
            Self::BadInput(_) | Self::BadBody(_) => StatusCode::BAD_REQUEST,
            Self::Unsupported(_) => StatusCode::NOT_IMPLEMENTED,
            Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        let code = match &error {
            ApiError::NotFound(_) => Code::NotFound,
            ApiError::AlreadyExists(_) => Code::AlreadyExists,
            ApiError::BadInput(_) | ApiError::BadBody(_) => Code::InvalidArgument,
            ApiError::Unsupported(_) => Code::Unimplemented,
            ApiError::Stopping => Code::Unavailable,
            ApiError::Internal(_) => Code::Internal,
        };
        Self::new(code, error.to_string())
    }
}

/// Classifies the engine's errors into client and server errors.
impl From<OperationError> for ApiError {
    fn from(error: OperationError) -> Self {
        match error {
            OperationError::PointIdError { missed_point_id } => {
                Self::NotFound(format!("No point with id {missed_point_id} found"))
            }
            OperationError::ServiceError { description, .. } => Self::Internal(description),
            OperationError::InconsistentStorage { .. }
            | OperationError::OutOfMemory { .. }
            | OperationError::Cancelled { .. }
            | OperationError::Timeout { .. } => Self::Internal(error.to_string()),
            OperationError::WrongVectorDimension { .. }
            | OperationError::VectorNameNotExists { .. }
            | OperationError::TypeError { .. }
            | OperationError::TypeInferenceError { .. }
            | OperationError::ValidationError { .. }
            | OperationError::WrongSparse
            | OperationError::WrongMulti
            | OperationError::MissingRangeIndexForOrderBy { .. }
            | OperationError::MissingMapIndexForFacet { .. }
            | OperationError::VariableTypeError { .. }
            | OperationError::NonFiniteNumber { .. } => Self::BadInput(error.to_string()),
        }
    }
}

impl From<std::io::Error> for ApiError {
    fn from(error: std::io::Error) -> Self {
        Self::Internal(error.to_string())
    }
}
