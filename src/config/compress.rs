//! `compress`: `true`, a list of codings, or a mapping.

use super::decode::{Decoder, Field, boolean, size, word};
use super::names::shown;
use super::terms::NONE;
use crate::gateway::compress::{Coding, Compression};

const CODINGS: [(&str, Coding); 3] = [("zstd", Coding::Zstd), ("br", Coding::Br), ("gzip", Coding::Gzip)];
const MOST_LEAST_BYTES: u64 = 1 << 30;

/// Reads `compress`; `None`: nothing is.
pub(super) fn read(decoder: &mut Decoder, field: &Field<'_>) -> Option<Compression> {
    let default = Compression::default();
    if field.is_scalar() {
        let is_coding = |text: &str| CODINGS.iter().any(|(name, _)| *name == text);
        let is_on = decoder.read(field, |text| match text {
            NONE => Ok(false),
            text if is_coding(text) => Ok(true),
            text => boolean(text).map_err(|_| {
                format!("must be `true`, `false` or a list of `zstd`, `br` and `gzip`, got `{}`", shown(text))
            }),
        })?;
        let coding = decoder.read(field, |text| Ok(CODINGS.iter().find(|(name, _)| *name == text)))?;
        let codings = coding.map_or(default.codings, |(_, coding)| vec![*coding]);
        return is_on.then_some(Compression { codings, ..Compression::default() });
    }
    if !field.is_table() {
        return Some(Compression { codings: codings(decoder, field), ..default });
    }
    let table = decoder.table(field, &["codings", "minBytes", "types"]);
    let least = table.get("minBytes").and_then(|field| decoder.read(&field, size(0, MOST_LEAST_BYTES)));
    let types = table.get("types").map(|field| decoder.list(&field));
    Some(Compression {
        codings: table.get("codings").map_or(default.codings, |field| codings(decoder, &field)),
        least_bytes: least.map_or(default.least_bytes, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
        types: match types {
            Some(list) => list.iter().filter_map(|field| decoder.read(field, media_type)).collect(),
            None => default.types,
        },
    })
}

fn codings(decoder: &mut Decoder, field: &Field<'_>) -> Vec<Coding> {
    let list = decoder.list(field);
    let mut codings = Vec::new();
    for coding in list.iter().filter_map(|field| decoder.read(field, word("coding", &CODINGS))) {
        if !codings.contains(&coding) {
            codings.push(coding);
        }
    }
    codings
}

/// `text/html`, `text/*` or `*+json`.
fn media_type(text: &str) -> Result<String, String> {
    let lower = text.to_ascii_lowercase();
    let plain = lower.strip_suffix("/*").or_else(|| lower.strip_prefix("*+")).unwrap_or(&lower);
    let is_token = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
    };
    let is_good = match plain.split_once('/') {
        Some((kind, sub)) => plain.len() == lower.len() && is_token(kind) && is_token(sub),
        None => plain.len() < lower.len() && is_token(plain),
    };
    if is_good {
        Ok(lower)
    } else {
        Err(format!("`{}` is no media type; write for example `text/*` or `*+json`", shown(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_read() {
        for good in ["text/html", "text/*", "*+json", "application/vnd.a+json", "Image/SVG+xml"] {
            assert_eq!(media_type(good), Ok(good.to_ascii_lowercase()));
        }
        for bad in
            ["", "*", "*/*", "text", "text/", "/html", "text/html; charset=utf-8", "te*t/html", "*+", "*json", "a/b/*"]
        {
            assert!(media_type(bad).is_err(), "{bad}");
        }
    }
}
