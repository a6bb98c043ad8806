//! What a certificate says: for which names it is, and until when.

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// What the gateway needs to know of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// DNS names in lower case; `*.example.com` is for one label below.
    pub names: Vec<String>,
    /// The first name, or else the subject: for people.
    pub title: String,
    /// The last second of its validity, as seconds since 1970.
    pub not_after: i64,
}

/// Reads a certificate.
///
/// # Errors
/// When it is none.
pub(super) fn facts(der: &CertificateDer<'_>) -> Result<Facts, x509_parser::error::X509Error> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| match error {
        x509_parser::nom::Err::Error(error) | x509_parser::nom::Err::Failure(error) => error,
        x509_parser::nom::Err::Incomplete(_) => x509_parser::error::X509Error::InvalidCertificate,
    })?;
    let mut names = Vec::new();
    if let Some(alternatives) = certificate.subject_alternative_name()? {
        for name in &alternatives.value.general_names {
            if let GeneralName::DNSName(name) = name {
                names.push(name.to_ascii_lowercase());
            }
        }
    }
    let common = || certificate.subject().iter_common_name().find_map(|name| name.as_str().ok());
    if names.is_empty() {
        // RFC 9525 takes no name from there, but a certificate of one's own often has it nowhere else
        names.extend(common().filter(|name| name.contains('.')).map(str::to_ascii_lowercase));
    }
    let title = names.first().cloned().unwrap_or_else(|| certificate.subject().to_string());
    let title = if title.is_empty() { certificate.raw_serial_as_string() } else { title };
    Ok(Facts { names, title, not_after: certificate.validity().not_after.timestamp() })
}

/// Whether a pattern (`*.example.com` or a whole name) is for a name, both in lower case: the star stands for one label
/// (RFC 9525 section 6.3).
pub(super) fn is_for(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(below) => name.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == below),
        None => pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_one_label() {
        for (pattern, name, matches) in [
            ("a.example.com", "a.example.com", true),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "a.b.example.com", false),
            ("*.example.com", "example.com", false),
            ("*.example.com", ".example.com", false),
            ("example.com", "a.example.com", false),
        ] {
            assert_eq!(is_for(pattern, name), matches, "{pattern} {name}");
        }
    }

    #[test]
    fn names_and_end_are_read() {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = ["Shop.example.com".to_owned(), "*.example.org".to_owned(), "127.0.0.1".to_owned()];
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        let der = params.self_signed(&key).unwrap();
        let facts = facts(der.der()).unwrap();
        assert_eq!(facts.names, ["shop.example.com", "*.example.org"]);
        assert_eq!((facts.title.as_str(), facts.not_after), ("shop.example.com", 1_893_456_000));
        assert!(super::facts(&CertificateDer::from(vec![0x30, 0x00])).is_err());
    }
}
