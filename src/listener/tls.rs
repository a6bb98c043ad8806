//! Certificates, chosen by the name that a client asks for, and replaced while connections go on.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::IntGaugeVec;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ProducesTickets, ResolvesServerCert, VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use tokio::sync::watch;

use super::certificate::{self, Facts};
use crate::causes::chain;
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use crate::trust;

/// How often the files are looked at. They are a few kilobytes, and whoever replaces a certificate can wait a second.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often a certificate that soon ends is told of again.
const TELL_EVERY: Duration = Duration::from_secs(86_400);
/// Certificates are usually renewed a month before they end; so late something is wrong.
const SOON: i64 = 14 * 86_400;

/// Who a gateway is on its TLS port, or a service on its ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// At least one; the first is for clients that name no server, or one that no certificate is for.
    pub certificates: Vec<CertificateFiles>,
    /// Whose certificates clients may bring.
    pub client_ca: Option<PathBuf>,
    /// Whether they must.
    pub client_auth: ClientAuth,
    /// The RPC port takes nothing but TLS, too.
    pub rpc: bool,
    /// Of a service: its HTTP port stays plain.
    pub plain_http: bool,
    /// Where plain requests are sent on to; `None`: they are served.
    pub redirect: Option<ToHttps>,
}

/// Where a gateway takes HTTPS by default.
pub const HTTPS_PORT: u16 = 8443;

/// The port that clients are sent on to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToHttps {
    /// The gateway's own.
    Own,
    /// As clients see it.
    Port(u16),
}

impl ToHttps {
    /// Its number; [`HTTPS_PORT`] where nothing else was said.
    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Self::Own => HTTPS_PORT,
            Self::Port(port) => port,
        }
    }
}

/// A certificate with those that vouch for it, and its key; both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate first.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Whether clients bring a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not asked for one.
    #[default]
    Off,
    /// One that they bring must be good.
    Optional,
    /// Nobody connects without.
    Required,
}

/// Why there can be no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is not there, or is no PEM.
    #[error("cannot read `{path}`; it must be a PEM file")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// A PEM file without what it should hold.
    #[error("no certificate stands in `{0}`; it must be a PEM file with `-----BEGIN CERTIFICATE-----`")]
    NoCertificate(PathBuf),
    /// A PEM file without what it should hold.
    #[error("no private key stands in `{0}`; it must be a PEM file with `-----BEGIN PRIVATE KEY-----`")]
    NoKey(PathBuf),
    /// What is between the lines is no certificate.
    #[error("the certificate in `{path}` cannot be understood")]
    Certificate {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: x509_parser::error::X509Error,
    },
    /// Two that do not belong together, or a key that TLS cannot use.
    #[error("the key in `{key}` is not the one of the certificate in `{cert}`, or cannot be used")]
    Pair {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// A CA that cannot vouch for anybody.
    #[error("the certificates in `{path}` cannot vouch for clients")]
    ClientCa {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// rustls refuses.
    #[error("cannot set TLS up")]
    Refused(#[source] rustls::Error),
}

/// TLS for new connections. Every clone is the same.
#[derive(Clone)]
pub struct Tls {
    shared: Arc<TlsShared>,
}

struct TlsShared {
    /// For new connections.
    config: watch::Sender<Arc<ServerConfig>>,
    state: Mutex<State>,
    ends: IntGaugeVec,
}

/// What is in force and where it came from.
struct State {
    settings: TlsSettings,
    /// What the files held, to see a change.
    files: Contents,
    facts: Vec<Facts>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`] of the first that cannot be used.
    pub fn open(settings: TlsSettings, metrics: &Metrics) -> Result<Self, TlsError> {
        let ends = metrics.gauge(
            "tls_certificate_not_after_timestamp_seconds",
            "when a certificate of the HTTPS port ends, in seconds since 1970",
            &["certificate"],
        );
        let files = contents(&settings);
        let (config, facts) = load(&settings, None)?;
        let shared =
            TlsShared { config: watch::Sender::new(config), state: Mutex::new(State { settings, files, facts }), ends };
        let tls = Self { shared: Arc::new(shared) };
        tls.tell();
        Ok(tls)
    }

    /// Looks at the files from time to time, until the process ends.
    pub fn follow(&self, background: &Shutdown) {
        let (tls, ending) = (self.clone(), background.clone());
        background.spawn(async move {
            let mut told = tokio::time::Instant::now();
            let mut changing = None;
            loop {
                tokio::select! {
                    () = ending.begun() => return,
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                }
                changing = tls.look_again(changing);
                if told.elapsed() >= TELL_EVERY {
                    told = tokio::time::Instant::now();
                    tls.tell();
                }
            }
        });
    }

    /// Takes over files that have changed since they were looked at last, and are as they were then: whoever changes a
    /// certificate changes its key after it. Gives what is changing.
    fn look_again(&self, changing: Option<Contents>) -> Option<Contents> {
        let settings = self.state().settings.clone();
        let files = contents(&settings);
        if files == self.state().files {
            return None;
        }
        if changing.as_ref() != Some(&files) {
            return Some(files);
        }
        self.take(settings, files);
        None
    }

    /// Puts other settings in force for new connections, or the same ones with files that have changed, at once; what cannot
    /// be used is logged, and what was in force stays.
    pub fn replace(&self, settings: TlsSettings) {
        let files = contents(&settings);
        let is_same = {
            let state = self.state();
            settings == state.settings && files == state.files
        };
        if !is_same {
            self.take(settings, files);
        }
    }

    fn take(&self, settings: TlsSettings, files: Contents) {
        let mut state = self.state();
        let config = self.shared.config.borrow().clone();
        // tickets tell who a client was, so they hold as long as the rules for clients do
        let rules = |settings: &TlsSettings| (settings.client_ca.clone(), settings.client_auth);
        let kept = rules(&settings) == rules(&state.settings) && settings.client_auth == ClientAuth::Off;
        match load(&settings, kept.then(|| config.ticketer.clone())) {
            Ok((config, facts)) => {
                self.shared.config.send_replace(config);
                *state = State { settings, files, facts };
                drop(state);
                log::info!("tls certificates reloaded");
                self.tell();
            }
            Err(error) => {
                state.files = files; // told once
                log::error!("tls certificates not reloaded, those before stay in force: {}", chain(&error));
            }
        }
    }

    /// The config for a new connection.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        self.shared.config.borrow().clone()
    }

    /// Sets the metric, and logs what soon ends.
    fn tell(&self) {
        let state = self.state();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        self.shared.ends.reset();
        for Facts { title, not_after, .. } in &state.facts {
            self.shared.ends.with_label_values(&[title]).set(*not_after);
            let left = not_after - now;
            if left < 0 {
                log::error!("a certificate has ended, clients refuse it certificate={title}");
            } else if left < SOON {
                log::warn!("a certificate ends soon certificate={title} hours={}", left / 3600);
            }
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("settings", &self.state().settings).finish_non_exhaustive()
    }
}

impl TlsSettings {
    /// Whether the files can be used.
    ///
    /// # Errors
    /// [`TlsError`] of the first that cannot.
    pub fn check(&self) -> Result<(), TlsError> {
        load(self, None).map(drop)
    }

    fn paths(&self) -> impl Iterator<Item = &Path> {
        let pairs = self.certificates.iter().flat_map(|files| [files.cert.as_path(), files.key.as_path()]);
        pairs.chain(self.client_ca.as_deref())
    }
}

/// What each file holds; `None`: it cannot be read.
type Contents = Vec<Option<Vec<u8>>>;

fn contents(settings: &TlsSettings) -> Contents {
    settings.paths().map(|path| std::fs::read(path).ok()).collect()
}

type Tickets = Arc<dyn ProducesTickets>;

fn load(settings: &TlsSettings, tickets: Option<Tickets>) -> Result<(Arc<ServerConfig>, Vec<Facts>), TlsError> {
    let provider = Arc::new(ring::default_provider());
    let mut certificates = Certificates::default();
    let mut facts = Vec::new();
    for files in &settings.certificates {
        let (key, told) = pair(files, &provider)?;
        certificates.add(Arc::new(key), &told);
        facts.push(told);
    }
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions() // TLS 1.2 and 1.3
        .map_err(TlsError::Refused)?;
    let builder = match (&settings.client_ca, settings.client_auth) {
        (Some(path), auth @ (ClientAuth::Optional | ClientAuth::Required)) => {
            let fail = |source| TlsError::ClientCa { path: path.clone(), source };
            let mut roots = RootCertStore::empty();
            for certificate in chain_of(path)? {
                roots.add(certificate).map_err(|error| fail(Box::new(error)))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = if auth == ClientAuth::Optional { verifier.allow_unauthenticated() } else { verifier };
            let verifier = verifier.build().map_err(|error: VerifierBuilderError| fail(Box::new(error)))?;
            builder.with_client_cert_verifier(verifier)
        }
        _ => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(certificates));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = match tickets {
        Some(tickets) => tickets,
        None => ring::Ticketer::new().map_err(TlsError::Refused)?,
    };
    Ok((Arc::new(config), facts))
}

fn pair(
    files: &CertificateFiles,
    provider: &rustls::crypto::CryptoProvider,
) -> Result<(CertifiedKey, Facts), TlsError> {
    let CertificateFiles { cert, key } = files;
    let chain = chain_of(cert)?;
    let facts = match chain.first() {
        Some(first) => certificate::facts(first).map_err(|source| TlsError::Certificate { path: cert.clone(), source }),
        None => Err(TlsError::NoCertificate(cert.clone())),
    }?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|source| match source {
        pem::Error::NoItemsFound => TlsError::NoKey(key.clone()),
        source => TlsError::File { path: key.clone(), source },
    })?;
    let certified = CertifiedKey::from_der(chain, secret, provider).map_err(|source| TlsError::Pair {
        cert: cert.clone(),
        key: key.clone(),
        source,
    })?;
    Ok((certified, facts))
}

fn chain_of(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    match trust::pem_certificates(path).map_err(|source| TlsError::File { path: path.to_owned(), source })? {
        chain if chain.is_empty() => Err(TlsError::NoCertificate(path.to_owned())),
        chain => Ok(chain),
    }
}

/// Certificates by their names.
#[derive(Debug, Default)]
struct Certificates {
    first: Option<Arc<CertifiedKey>>,
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// `*.example.com`
    wild: Vec<(String, Arc<CertifiedKey>)>,
}

impl Certificates {
    fn add(&mut self, key: Arc<CertifiedKey>, facts: &Facts) {
        self.first.get_or_insert_with(|| key.clone());
        for name in &facts.names {
            if name.starts_with("*.") {
                self.wild.push((name.clone(), key.clone()));
            } else {
                self.exact.entry(name.clone()).or_insert_with(|| key.clone());
            }
        }
    }

    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let name = name.to_ascii_lowercase();
        let wild = || self.wild.iter().find(|(pattern, _)| certificate::is_for(pattern, &name)).map(|(_, key)| key);
        self.exact.get(&name).or_else(wild)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        hello.server_name().and_then(|name| self.find(name)).or(self.first.as_ref()).cloned()
    }
}
