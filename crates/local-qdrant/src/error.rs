//! One error type for both APIs: what went wrong, in Qdrant's own words, and which answer it maps to.

use axum::http::StatusCode;
use qdrant_edge::OperationError;
use tonic::{Code, Status};

/// Why a request was refused. The text is what a real Qdrant says, so that clients and people who match on it
/// see no difference.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ApiError {
    /// The collection, alias or point does not exist: 404 and `NotFound`.
    #[error("Not found: {0}")]
    NotFound(String),
    /// The name is taken: 409 and `AlreadyExists`.
    #[error("Wrong input: {0}")]
    AlreadyExists(String),
    /// The request makes no sense for this collection: 400 and `InvalidArgument`.
    #[error("Wrong input: {0}")]
    BadInput(String),
    /// The body is not what the endpoint expects: 400 and `InvalidArgument`.
    #[error("Format error in JSON body: {0}")]
    BadBody(String),
    /// A call of Qdrant's API that the local server does not have: 501 and `Unimplemented`.
    #[error("{0} is not available on tidewheel's local Qdrant; use a Qdrant server for it")]
    Unsupported(String),
    /// The server shuts down: 503 and `Unavailable`, so that clients try again.
    #[error("the server is stopping")]
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

/// The engine's errors, sorted by whose fault they are.
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
