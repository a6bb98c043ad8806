//! The environment: where the data and runtime folders are, OpenTelemetry's standard variables and Go Micro's. (The `GOMS_…`
//! variables of flags are read by clap, as declared in `flags`.)

use std::ffi::OsString;
use std::path::PathBuf;

use awc::http::header::{HeaderName, HeaderValue};
use url::Url;

use super::address::etcd_list;
use super::decode::Decoder;
use super::flags::{CommonFlags, registry_word};
use super::units::parse_positive_duration;
use crate::trace::OtlpSettings;

/// Folders that no flag named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Folders {
    pub(super) data: PathBuf,
    pub(super) runtime: PathBuf,
}

impl Folders {
    /// Reads this process's environment.
    pub(super) fn of_this_process() -> Self {
        Self::read(|name| std::env::var_os(name), std::env::temp_dir(), user())
    }

    /// By the XDG Base Directory Specification: a path that is not absolute is ignored. Without a runtime folder (or a
    /// home) it is one of the user's own in the temporary folder.
    fn read(variable: impl Fn(&str) -> Option<OsString>, temp: PathBuf, user: String) -> Self {
        let folder = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let own = temp.join(format!("goms-{user}"));
        let data = folder("XDG_DATA_HOME")
            .or_else(|| folder("HOME").map(|home| home.join(".local/share")))
            .map_or_else(|| own.join("data"), |data| data.join("goms"));
        let runtime = folder("XDG_RUNTIME_DIR").map_or(own, |runtime| runtime.join("goms"));
        Self { data, runtime }
    }
}

/// What a pod of Kubernetes knows of its cluster
/// (<https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/>).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pod {
    /// `https://host:port` of the API server.
    pub(super) server: Option<String>,
    pub(super) namespace: Option<String>,
}

impl Pod {
    /// Reads this process's environment.
    pub(super) fn of_this_process() -> Self {
        let namespace = std::fs::read_to_string("/var/run/secrets/kubernetes.io/serviceaccount/namespace").ok();
        Self::read(|name| std::env::var(name).ok(), namespace)
    }

    fn read(variable: impl Fn(&str) -> Option<String>, namespace: Option<String>) -> Self {
        let variable = |name| variable(name).filter(|value| !value.is_empty());
        let host = variable("KUBERNETES_SERVICE_HOST");
        let host = host.map(|host| if host.contains(':') { format!("[{host}]") } else { host });
        let port = variable("KUBERNETES_SERVICE_PORT").unwrap_or_else(|| "443".to_owned());
        let namespace = namespace.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        Self { server: host.map(|host| format!("https://{host}:{port}")), namespace }
    }
}

/// The flags with what Go Micro's variables say where neither flag nor `GOMS_…` variable does.
pub(super) fn go_micro(decoder: &mut Decoder, flags: &CommonFlags) -> CommonFlags {
    fill(decoder, flags.clone(), |name| std::env::var(name).ok().filter(|value| !value.trim().is_empty()))
}

fn fill(decoder: &mut Decoder, mut flags: CommonFlags, variable: impl Fn(&str) -> Option<String>) -> CommonFlags {
    let mut take = |name: &str, is_given: bool, read: &mut dyn FnMut(&str) -> Result<(), String>| {
        if let Some(text) = variable(name).filter(|_| !is_given)
            && let Err(message) = read(text.trim())
        {
            decoder.flag_fault(name, message);
        }
    };
    let CommonFlags { registry, registry_address, register_ttl, register_interval, .. } = &mut flags;
    take("MICRO_REGISTRY", registry.is_some(), &mut |text| registry_word(text).map(|word| *registry = Some(word)));
    take("MICRO_REGISTRY_ADDRESS", registry_address.is_some(), &mut |text| {
        etcd_list(text).map(|list| *registry_address = Some(list))
    });
    take("MICRO_REGISTER_TTL", register_ttl.is_some(), &mut |text| {
        parse_positive_duration(text).map(|ttl| *register_ttl = Some(ttl))
    });
    take("MICRO_REGISTER_INTERVAL", register_interval.is_some(), &mut |text| {
        parse_positive_duration(text).map(|interval| *register_interval = Some(interval))
    });
    flags
}

/// The one protocol of OTLP that goms speaks.
const OTLP_PROTOCOL: &str = "http/protobuf";

/// The collector that this process's environment names.
pub(super) fn otlp(decoder: &mut Decoder) -> Option<OtlpSettings> {
    let variable = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    read_otlp(variable).unwrap_or_else(|(name, message)| {
        decoder.flag_fault(name, message);
        None
    })
}

/// By <https://opentelemetry.io/docs/specs/otel/protocol/exporter/>: the variables of traces win over those of all
/// signals, and an empty one counts as none. The fault is a variable and what is wrong with it; it shows no value of
/// headers.
fn read_otlp(variable: impl Fn(&str) -> Option<String>) -> Result<Option<OtlpSettings>, (&'static str, String)> {
    let first = |names: [&'static str; 2]| {
        names.into_iter().find_map(|name| {
            let value = variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())?;
            Some((name, value))
        })
    };
    let endpoints = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
    let Some((endpoint_name, endpoint)) = first(endpoints) else { return Ok(None) };
    let mut url = collector(&endpoint).map_err(|message| (endpoint_name, message))?;
    if endpoint_name == endpoints[1] {
        let path = format!("{}/v1/traces", url.path().trim_end_matches('/'));
        url.set_path(&path);
    }
    if let Some((name, protocol)) = first(["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"])
        && protocol != OTLP_PROTOCOL
    {
        let message = format!(
            "goms exports spans by `{OTLP_PROTOCOL}` only (port 4318 of most collectors), got `{protocol}`; set \
             OTEL_EXPORTER_OTLP_TRACES_PROTOCOL={OTLP_PROTOCOL}, or unset {endpoint_name}"
        );
        return Err((name, message));
    }
    let headers = match first(["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"]) {
        Some((name, list)) => headers(&list).map_err(|message| (name, message))?,
        None => Vec::new(),
    };
    let file = |names: [&'static str; 2]| first(names).map(|(_, path)| PathBuf::from(path));
    let ca_file = file(["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"]);
    let certificate = file(["OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"]);
    let keys = ["OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "OTEL_EXPORTER_OTLP_CLIENT_KEY"];
    let identity_files = match (certificate, file(keys)) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => return Err((keys[1], "a client certificate and its key go together; set both or none".to_owned())),
    };
    Ok(Some(OtlpSettings { url: url.into(), headers, ca_file, identity_files }))
}

fn collector(text: &str) -> Result<Url, String> {
    let bad = |why: &str| format!("is no address of a collector: {why}; write for example `http://127.0.0.1:4318`");
    let url = Url::parse(text).map_err(|error| bad(&error.to_string()))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("credentials belong into OTEL_EXPORTER_OTLP_HEADERS"));
    }
    match url.scheme() {
        "http" | "https" => Ok(url),
        _ => Err(bad("it must begin with `http://` or `https://`")),
    }
}

/// `name=value,name2=value2`, values percent-encoded.
fn headers(list: &str) -> Result<Vec<(String, String)>, String> {
    let mut found = Vec::new();
    for (number, member) in list.split(',').map(str::trim).enumerate().filter(|(_, member)| !member.is_empty()) {
        let bad = |why: &str| format!("header {}: {why}; write `name=value,name2=value2`", number + 1);
        let (name, value) = member.split_once('=').ok_or_else(|| bad("has no `=`"))?;
        let name = name.trim().to_ascii_lowercase();
        HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad("the name is not one of a header"))?;
        let value = percent_decoded(value.trim()).ok_or_else(|| bad("the value is no text once percent-decoded"))?;
        HeaderValue::from_str(&value).map_err(|_| bad("the value cannot stand in a header"))?;
        found.push((name, value));
    }
    Ok(found)
}

/// A `%` that two hexadecimal digits do not follow stands for itself.
fn percent_decoded(text: &str) -> Option<String> {
    let (bytes, mut decoded) = (text.as_bytes(), Vec::with_capacity(text.len()));
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).filter(|hex| bytes[at] == b'%' && hex.iter().all(u8::is_ascii_hexdigit));
        let byte = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        decoded.push(byte.unwrap_or(bytes[at]));
        at += if byte.is_some() { 3 } else { 1 };
    }
    String::from_utf8(decoded).ok()
}

/// What tells the users of a machine apart.
fn user() -> String {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::MetadataExt;
        if let Ok(own) = std::fs::metadata("/proc/self") {
            return own.uid().to_string();
        }
    }
    let name = std::env::var("USER").or_else(|_| std::env::var("USERNAME")).unwrap_or_default();
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    if name.is_empty() { "user".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_knows_its_api_server() {
        let pod = |host: &'static str, port: &'static str, namespace: &str| {
            let variable = move |name: &str| {
                let value = if name.ends_with("HOST") { host } else { port };
                (!value.is_empty()).then(|| value.to_owned())
            };
            Pod::read(variable, (!namespace.is_empty()).then(|| namespace.to_owned()))
        };
        let all = Pod { server: Some("https://10.96.0.1:6443".into()), namespace: Some("shop".into()) };
        assert_eq!(pod("10.96.0.1", "6443", "shop\n"), all);
        assert_eq!(pod("fd00::1", "", "").server.as_deref(), Some("https://[fd00::1]:443"));
        assert_eq!(pod("", "443", ""), Pod::default());
    }

    #[test]
    fn variables_of_go_micro_fill_what_no_flag_says() {
        let said = |name: &str| {
            let text = match name {
                "MICRO_REGISTRY" => "etcdv3",
                "MICRO_REGISTRY_ADDRESS" => "http://10.0.0.1:2379,10.0.0.2:2379",
                "MICRO_REGISTER_TTL" => "30",
                "MICRO_REGISTER_INTERVAL" => "ten",
                _ => return None,
            };
            Some(text.to_owned())
        };
        let mut decoder = Decoder::new("x");
        let given = CommonFlags { register_ttl: Some(std::time::Duration::from_secs(5)), ..CommonFlags::default() };
        let flags = fill(&mut decoder, given, said);
        assert_eq!(flags.registry, Some(super::super::RegistryWord::Etcd));
        assert_eq!(flags.registry_address.as_deref().map(<[String]>::len), Some(2));
        assert_eq!(flags.register_ttl.map(|ttl| ttl.as_secs()), Some(5));
        assert_eq!((decoder.faults.len(), decoder.faults[0].path.as_str()), (1, "MICRO_REGISTER_INTERVAL"));
    }

    fn read(variables: &[(&str, &str)]) -> (String, String) {
        let variable = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        let folders = Folders::read(variable, "/tmp".into(), "1000".to_owned());
        (folders.data.display().to_string(), folders.runtime.display().to_string())
    }

    fn otlp(variables: &[(&str, &str)]) -> Result<Option<OtlpSettings>, String> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| name.strip_prefix("OTEL_EXPORTER_OTLP_") == Some(known));
            found.map(|(_, value)| (*value).to_owned())
        };
        read_otlp(variable).map_err(|(name, message)| format!("{name}: {message}"))
    }

    #[test]
    fn the_collector_follows_the_standard_variables() {
        let url = |variables: &[(&str, &str)]| otlp(variables).unwrap().map(|otlp| otlp.url);
        assert_eq!(url(&[]), None);
        assert_eq!(url(&[("ENDPOINT", " "), ("PROTOCOL", "grpc")]), None);
        for (endpoint, expected) in [
            ("http://c:4318", "http://c:4318/v1/traces"),
            ("http://c:4318/", "http://c:4318/v1/traces"),
            ("http://[::1]:4318/a/b/?k=v", "http://[::1]:4318/a/b/v1/traces?k=v"),
        ] {
            assert_eq!(url(&[("ENDPOINT", endpoint), ("PROTOCOL", "http/protobuf")]).unwrap(), expected);
        }
        let both = [("TRACES_ENDPOINT", "http://t:1/in"), ("ENDPOINT", "http://c:4318")];
        assert_eq!(url(&both).unwrap(), "http://t:1/in");
        let other = [("ENDPOINT", "http://c"), ("PROTOCOL", "grpc"), ("TRACES_PROTOCOL", "http/protobuf")];
        assert_eq!(url(&other).unwrap(), "http://c/v1/traces");
    }

    #[test]
    fn files_for_tls_are_those_of_traces_or_of_all_signals() {
        let variables = [
            ("ENDPOINT", "https://c"),
            ("CERTIFICATE", "all.pem"),
            ("TRACES_CERTIFICATE", "ca.pem"),
            ("CLIENT_CERTIFICATE", "own.pem"),
            ("TRACES_CLIENT_KEY", "key.pem"),
        ];
        let found = otlp(&variables).unwrap().unwrap();
        assert_eq!((found.url.as_str(), found.ca_file), ("https://c/v1/traces", Some("ca.pem".into())));
        assert_eq!(found.identity_files, Some(("own.pem".into(), "key.pem".into())));
    }

    #[test]
    fn headers_are_decoded() {
        let headers = |list| otlp(&[("ENDPOINT", "http://c"), ("HEADERS", list)]).map(|otlp| otlp.unwrap().headers);
        let expected = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>()
        };
        assert_eq!(headers("Authorization=Basic%20YWI=").unwrap(), expected(&[("authorization", "Basic YWI=")]));
        assert_eq!(headers(" a = 1 ,, b=100%2C%,").unwrap(), expected(&[("a", "1"), ("b", "100,%")]));
        for bad in ["s3cret", "a=1,s3 cret=1", "a=%0As3cret", "a=%FFs3cret", "=s3cret"] {
            let fault = headers(bad).expect_err(bad);
            assert!(fault.starts_with("OTEL_EXPORTER_OTLP_HEADERS: header ") && !fault.contains("cret"), "{fault}");
        }
    }

    #[test]
    fn what_cannot_be_exported_to_is_said() {
        for (variables, said) in [
            (
                &[("ENDPOINT", "ftp://c")][..],
                "OTEL_EXPORTER_OTLP_ENDPOINT: is no address of a collector: it must begin with",
            ),
            (&[("ENDPOINT", "c:4318")], "must begin with `http://` or `https://`"),
            (&[("ENDPOINT", "https://c"), ("CLIENT_KEY", "key.pem")], "OTEL_EXPORTER_OTLP_CLIENT_KEY: a client"),
            (&[("TRACES_ENDPOINT", "127.0.0.1")], "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: is no address of a collector"),
            (&[("ENDPOINT", "http://u:s3cret@c")], "OTEL_EXPORTER_OTLP_HEADERS"),
            (&[("ENDPOINT", "http://c"), ("PROTOCOL", "grpc")], "OTEL_EXPORTER_OTLP_PROTOCOL: goms exports spans by"),
            (&[("ENDPOINT", "http://c"), ("TRACES_PROTOCOL", "http/json")], "got `http/json`"),
        ] {
            let fault = otlp(variables).expect_err(said);
            assert!(fault.contains(said) && !fault.contains("s3cret"), "{fault}");
        }
    }

    #[test]
    fn folders_follow_xdg() {
        let both = [("XDG_DATA_HOME", "/d"), ("XDG_RUNTIME_DIR", "/run/user/1"), ("HOME", "/h")];
        assert_eq!(read(&both), ("/d/goms".to_owned(), "/run/user/1/goms".to_owned()));
        let home = [("XDG_DATA_HOME", "relative"), ("XDG_RUNTIME_DIR", ""), ("HOME", "/h")];
        assert_eq!(read(&home), ("/h/.local/share/goms".to_owned(), "/tmp/goms-1000".to_owned()));
        assert_eq!(read(&[]), ("/tmp/goms-1000/data".to_owned(), "/tmp/goms-1000".to_owned()));
    }
}
