//! Which header fields of a call are its metadata.
//!
//! The rest belongs to one connection, to the framing of gRPC or to goms. Go Micro's nodes send on what they got, a foreign
//! `content-length` too, which HTTP/2 takes at its word.

/// Fields that are never passed on as metadata.
const RESERVED: [&str; 20] = [
    "accept-encoding",
    "call-service-key",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "goms-service",
    "grpc-accept-encoding",
    "grpc-encoding",
    "grpc-timeout",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "timeout",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

/// Whether a field (its name in lower case) goes on with a call that is made for another.
#[must_use]
pub fn passes(name: &str) -> bool {
    !name.starts_with(':') && RESERVED.binary_search(&name).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_frames_a_call_is_no_metadata() {
        assert!(RESERVED.is_sorted());
        for name in RESERVED {
            assert!(!passes(name), "{name}");
        }
        for name in ["authorization", "x-user", "trace-bin", "micro-from-service"] {
            assert!(passes(name), "{name}");
        }
        assert!(!passes(":path"));
    }
}
