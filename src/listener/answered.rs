//! An answer as a server gives it to its connection.

use actix_web::HttpResponse;
use actix_web::body::BoxBody;

use crate::raw_fields::RawFields;

/// An answer on its way to the client.
pub struct Answered {
    /// Its status, its own fields and its body.
    pub response: HttpResponse<BoxBody>,
    /// Fields besides, which pass as they were read. They concern no one connection, and say nothing of the body's length.
    pub passed: RawFields,
    /// `X-Request-Id`, in place of any other.
    pub request_id: Option<[u8; 36]>,
}

impl From<HttpResponse<BoxBody>> for Answered {
    fn from(response: HttpResponse<BoxBody>) -> Self {
        Self { response, passed: RawFields::default(), request_id: None }
    }
}
