//! Who we are at the server, and what to set where it does not let us in.

use ::elasticsearch::auth::Credentials;
use ::elasticsearch::http::StatusCode;
use serde_json::Value;
use url::Url;

use super::super::ElasticsearchLogin;

/// The credentials of one address, and where they come from.
pub(super) enum Access {
    None,
    /// A user and a password of the address itself.
    Address {
        user: String,
        password: String,
    },
    /// `es.user` and `es.password`, or `es.apiKey`.
    Login(ElasticsearchLogin),
}

/// What an index's consumer needs, in words of Elasticsearch and OpenSearch.
const PRIVILEGES: &str =
    "on the cluster `monitor` and `manage_index_templates`, on the indices `{index}*` `manage`, `read` and `write`";

impl Access {
    /// What stands in the address goes first.
    pub fn of(url: &Url, login: Option<&ElasticsearchLogin>) -> Self {
        match (url.username(), login) {
            ("", None) => Self::None,
            ("", Some(login)) => Self::Login(login.clone()),
            (user, _) => Self::Address { user: decoded(user), password: decoded(url.password().unwrap_or_default()) },
        }
    }

    pub fn credentials(&self) -> Option<Credentials> {
        match self {
            Self::None => None,
            Self::Address { user, password } | Self::Login(ElasticsearchLogin::User { user, password }) => {
                Some(Credentials::Basic(user.clone(), password.clone()))
            }
            Self::Login(ElasticsearchLogin::ApiKey(key)) => Some(match key.split_once(':') {
                Some((id, secret)) => Credentials::ApiKey(id.to_owned(), secret.to_owned()),
                None => Credentials::EncodedApiKey(key.clone()),
            }),
        }
    }

    /// What is wrong and what to set, where a server answers with this status.
    pub fn hint(&self, status: StatusCode, index: &str) -> String {
        if status == StatusCode::FORBIDDEN {
            let who = match self {
                Self::None => "requests without credentials (`es.user`, `es.apiKey`)".to_owned(),
                Self::Address { user, .. } => format!("the user `{user}` of `esAddr`"),
                Self::Login(ElasticsearchLogin::User { user, .. }) => format!("the user `{user}` of `es.user`"),
                Self::Login(ElasticsearchLogin::ApiKey(_)) => "the key of `es.apiKey`".to_owned(),
            };
            return format!("it does not allow {who} to do this; needed are {}", PRIVILEGES.replace("{index}", index));
        }
        match self {
            Self::None => "it wants credentials; set `es.user` and `es.password`, or `es.apiKey`".to_owned(),
            Self::Address { user, .. } => {
                format!("it knows no user `{user}` with this password; look at the user and password in `esAddr`")
            }
            Self::Login(ElasticsearchLogin::User { user, .. }) => {
                format!("it knows no user `{user}` with this password; look at `es.user` and `es.password`")
            }
            Self::Login(ElasticsearchLogin::ApiKey(_)) => {
                "it does not take the key: wrong, expired or withdrawn; set another `es.apiKey`".to_owned()
            }
        }
    }
}

/// Whether an answer says that we may not, rather than that an index takes nothing now.
pub(super) fn is_denied(status: StatusCode, error: Option<&Value>) -> bool {
    match status {
        StatusCode::UNAUTHORIZED => true,
        StatusCode::FORBIDDEN => error.is_none_or(|error| error["type"] == "security_exception" || error.is_string()),
        _ => false,
    }
}

/// What to set where no TLS connection comes about.
pub(super) fn tls_hint(reason: &str) -> Option<&'static str> {
    // the second: an authority of the same name with another key
    if reason.contains("UnknownIssuer") || reason.contains("BadSignature") {
        Some("no authority that is known vouches for its certificate; set `es.caFile`")
    } else if reason.contains("not valid for name") {
        Some("its certificate is for another name; write that name in `esAddr`")
    } else if reason.contains("certificate expired") {
        Some("its certificate has expired")
    } else if reason.contains("InvalidContentType") {
        Some("it speaks no TLS; write `http://` in `esAddr`")
    } else {
        None
    }
}

/// Undoes the percent-encoding of a URL's user or password.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let pair = tail.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match pair.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn access(url: &str, login: Option<&ElasticsearchLogin>) -> Access {
        Access::of(&Url::parse(url).expect("a URL"), login)
    }

    #[test]
    fn credentials_of_the_address_go_first() {
        assert_eq!(decoded("a%40b%3Ac%"), "a@b:c%");
        let (plain, with) = ("http://h:9200", "http://elastic:s%40cret@h:9200");
        let user = ElasticsearchLogin::User { user: "u".to_owned(), password: "p".to_owned() };
        let basic = |access: Access| match access.credentials() {
            Some(Credentials::Basic(user, password)) => format!("{user} {password}"),
            other => panic!("{other:?}"),
        };
        assert!(access(plain, None).credentials().is_none());
        assert_eq!(basic(access(with, Some(&user))), "elastic s@cret");
        assert_eq!(basic(access(plain, Some(&user))), "u p");
        let key = |text: &str| access(plain, Some(&ElasticsearchLogin::ApiKey(text.to_owned()))).credentials();
        assert!(matches!(key("a:b"), Some(Credentials::ApiKey(id, secret)) if id == "a" && secret == "b"));
        assert!(matches!(key("YTpi"), Some(Credentials::EncodedApiKey(text)) if text == "YTpi"));
    }

    #[test]
    fn hints_name_the_key_and_no_secret() {
        let user = ElasticsearchLogin::User { user: "u".to_owned(), password: "s3cret".to_owned() };
        let key = ElasticsearchLogin::ApiKey("s3cret".to_owned());
        assert!(!format!("{user:?} {key:?}").contains("s3cret"));
        for (url, login, named) in [
            ("http://h", None, "`es.user`"),
            ("http://a:s3cret@h", None, "`esAddr`"),
            ("http://h", Some(&user), "`es.user`"),
            ("http://h", Some(&key), "`es.apiKey`"),
        ] {
            for status in [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN] {
                let hint = access(url, login).hint(status, "logs");
                assert!(hint.contains(named) && !hint.contains("s3cret"), "{hint}");
            }
        }
    }

    #[test]
    fn a_blocked_index_is_no_denial() {
        let error = |kind: &str| json!({"type": kind, "reason": "no"});
        assert!(is_denied(StatusCode::UNAUTHORIZED, None));
        assert!(is_denied(StatusCode::FORBIDDEN, None));
        assert!(is_denied(StatusCode::FORBIDDEN, Some(&error("security_exception"))));
        assert!(!is_denied(StatusCode::FORBIDDEN, Some(&error("cluster_block_exception"))));
        assert!(!is_denied(StatusCode::TOO_MANY_REQUESTS, None));
    }
}
