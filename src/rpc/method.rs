//! Names of methods. `Say.Hello`, `greeter.Say.Hello`, `greeter.Say/Hello`, `/greeter.Say/Hello` and `/Say/Hello` all name
//! the method `Hello` of `Say`; the first two are Go Micro's way of writing, the others gRPC's.

/// A method's name in its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MethodName<'a> {
    /// What stands before the service: `greeter`; empty for none.
    pub package: &'a str,
    /// `Say`.
    pub service: &'a str,
    /// `Hello`.
    pub method: &'a str,
}

/// Why a text names no method.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no method; write `Say.Hello` or `/greeter.Say/Hello`")]
pub struct MethodError(pub String);

impl<'a> MethodName<'a> {
    /// Reads a name in any form.
    ///
    /// # Errors
    /// [`MethodError`] where a part is missing.
    pub fn parse(text: &'a str) -> Result<Self, MethodError> {
        let wrong = || MethodError(text.to_owned());
        let name = text.strip_prefix('/').unwrap_or(text);
        let (full, method) = name.rsplit_once('/').or_else(|| name.rsplit_once('.')).ok_or_else(wrong)?;
        let (package, service) = full.rsplit_once('.').unwrap_or(("", full));
        let is_word = |word: &str| !word.is_empty() && !word.contains(['/', ' ']) && word.is_ascii();
        let is_name = is_word(service) && is_word(method) && !package.contains([' ', '/']);
        if is_name { Ok(Self { package, service, method }) } else { Err(wrong()) }
    }

    /// `greeter.Say`.
    #[must_use]
    pub fn full_service(&self) -> String {
        if self.package.is_empty() { self.service.to_owned() } else { format!("{}.{}", self.package, self.service) }
    }

    /// `Say.Hello`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("{}.{}", self.service, self.method)
    }
}

/// The full service name of a path (`/greeter.Say/Hello` → `greeter.Say`), as it stands there.
#[must_use]
pub fn service_of_path(path: &str) -> Option<&str> {
    path.strip_prefix('/')?.rsplit_once('/').map(|(service, _)| service).filter(|service| !service.is_empty())
}

/// Whether a full service name ends with this service's: `greeter.Say` with `Say`.
#[must_use]
pub fn ends_with(full: &str, service: &str) -> bool {
    full.strip_suffix(service).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_names_the_same_method() {
        for (text, package) in [
            ("Say.Hello", ""),
            ("/Say/Hello", ""),
            ("Say/Hello", ""),
            ("greeter.Say.Hello", "greeter"),
            ("/greeter.Say/Hello", "greeter"),
            ("/go.micro.srv.greeter.Say/Hello", "go.micro.srv.greeter"),
        ] {
            let found = MethodName::parse(text).unwrap();
            assert_eq!(found, MethodName { package, service: "Say", method: "Hello" }, "{text}");
        }
        for bad in ["", "/", "Hello", "/Hello", "Say.", ".Hello", "/Say/", "//Hello", "a b.c"] {
            assert_eq!(MethodName::parse(bad), Err(MethodError(bad.to_owned())));
        }
        assert_eq!(service_of_path("/greeter.Say/Hello"), Some("greeter.Say"));
        assert_eq!((service_of_path("/Hello"), service_of_path("//x")), (None, None));
        assert!(ends_with("greeter.Say", "Say") && ends_with("Say", "Say"));
        assert!(!ends_with("greeter.Essay", "Say") && !ends_with("Say.It", "Say"));
    }
}
