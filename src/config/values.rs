//! What single values of a config file may be. Each gives what is wrong with one that it does not take.

use std::time::Duration;

use super::decode::size;
use super::names::shown;
use super::units::parse_positive_duration;
use crate::trace::BodyPath;

/// Less than some seconds of a busy cluster's events helps nobody.
const LEAST_RETAINED: u64 = 16 << 20;

pub(super) fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err(format!("must be a number from 0 (none) to 1 (all), got `{}`", shown(text))),
    }
}

pub(super) fn retain(text: &str) -> Result<Option<Duration>, String> {
    if text == "forever" { Ok(None) } else { parse_positive_duration(text).map(Some) }
}

pub(super) fn retain_bytes(text: &str) -> Result<Option<u64>, String> {
    if text == "unlimited" { Ok(None) } else { size(LEAST_RETAINED, u64::MAX)(text).map(Some) }
}

/// A name in AMQP: a short string, at most 255 bytes.
pub(super) fn short_name(text: &str) -> Result<String, String> {
    match text.len() {
        0..=255 => Ok(text.to_owned()),
        bytes => Err(format!("must have at most 255 bytes, this one has {bytes}")),
    }
}

pub(super) fn queue_name(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("must not be empty".to_owned()) } else { short_name(text) }
}

/// A token of RFC 9110, in lower case.
pub(super) fn header_name(text: &str) -> Result<String, String> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !text.is_empty() && text.bytes().all(token) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(format!("`{}` is no header name; write for example `x-api-key`", shown(text)))
    }
}

/// As a program sees it, decoded.
pub(super) fn parameter_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(['&', '=', '?', '[']) {
        Err(format!("`{}` is no name of a query parameter; write for example `token`", shown(text)))
    } else {
        Ok(text.to_owned())
    }
}

pub(super) fn body_path(text: &str) -> Result<BodyPath, String> {
    BodyPath::parse(text).map_err(|message| format!("`{}` {message}", shown(text)))
}

/// What the store takes as the name of an index: stricter than Elasticsearch, since the name stands in paths.
pub(super) fn es_index(text: &str) -> Result<String, String> {
    let good = !text.is_empty()
        && text.len() <= 255
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.".contains(&byte));
    if good {
        Ok(text.to_owned())
    } else {
        Err(format!("`{}` is no name of an index; use lower case letters, digits, `-` and `_`", shown(text)))
    }
}
