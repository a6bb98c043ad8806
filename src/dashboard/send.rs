//! A request that a visitor sends from a page: to a node of the cluster, and to nothing else.

use std::time::{Duration, Instant};

use actix_web::http::Method;
use actix_web::http::header::{HeaderName, HeaderValue};

use super::Dashboard;
use crate::registry::NodeState;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Of an answer's body; a longer one is not shown.
const ANSWER_BYTES: usize = 1 << 20;
/// The service whose nodes are the front door: they get no call key.
pub const GATEWAY: &str = "gateway";

/// A node that can be sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `ip:port` of its HTTP port.
    pub address: String,
    /// The version that it tells.
    pub version: String,
    /// Whether it takes no new requests.
    pub is_draining: bool,
}

/// What is sent.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    pub method: String,
    /// The path and the query.
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    /// The body; `Err` with the reason where it is not there.
    pub body: Result<Vec<u8>, String>,
    pub took: Duration,
}

impl Answer {
    /// The first value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// The nodes of a service that can be sent to, by address.
pub fn targets(dashboard: &Dashboard, service: &str) -> Vec<Target> {
    let catalog = dashboard.inner.catalog.borrow().clone();
    let nodes = catalog.as_deref().map(|catalog| catalog.nodes(service)).unwrap_or_default();
    let mut targets: Vec<Target> = nodes
        .iter()
        .filter_map(|node| {
            Some(Target {
                address: node.id.http.socket()?.to_string(),
                version: node.meta.version.clone(),
                is_draining: node.state == NodeState::Draining,
            })
        })
        .collect();
    targets.sort_by(|a, b| a.address.cmp(&b.address));
    targets
}

/// Sends to a node of a service, with the call key where it is no gateway. Redirects are answers.
///
/// # Errors
/// What a visitor can mend, or why there is no answer.
pub async fn send(dashboard: &Dashboard, service: &str, address: &str, sent: &Sent) -> Result<Answer, String> {
    if !targets(dashboard, service).iter().any(|target| target.address == address) {
        return Err(format!("`{address}` is no node of {service} now; choose one of the list"));
    }
    let method = match Method::from_bytes(sent.method.as_bytes()) {
        Ok(method) if method != Method::CONNECT => method,
        _ => return Err(format!("`{}` is no method that can be sent", sent.method)),
    };
    if !sent.target.starts_with('/') {
        return Err(format!("the path begins with `/`, not as `{}`", sent.target));
    }
    let client = awc::Client::builder().timeout(TIMEOUT).disable_redirects().no_default_headers().finish();
    let mut request = client.request(method, format!("http://{address}{}", sent.target)).no_decompress();
    for (name, value) in &sent.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is no name of a header"))?;
        let value = HeaderValue::from_str(value).map_err(|_| format!("header `{name}` holds what no header may"))?;
        request = request.append_header((name, value));
    }
    if service != GATEWAY
        && let Some(key) = dashboard.call_key()
    {
        request = request.insert_header(("Call-Service-Key", &*key));
    }
    let began = Instant::now();
    // awc's errors are not `Send`, so their text is kept
    let mut response = request.send_body(sent.body.clone()).await.map_err(|error| format!("no answer: {error}"))?;
    let body = response.body().limit(ANSWER_BYTES).await.map_err(|error| error.to_string());
    let headers = response
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
    Ok(Answer {
        status: response.status().as_u16(),
        headers: headers.collect(),
        body: body.map(|body| body.to_vec()),
        took: began.elapsed(),
    })
}
