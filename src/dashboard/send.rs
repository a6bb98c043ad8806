//! A request that a visitor sends from a page: to a node of the cluster, and to nothing else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::http::Method;
use actix_web::http::header::{HeaderName, HeaderValue};

use super::Dashboard;
use crate::registry::{Node, NodePort, NodeState};

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
    /// What a visitor should know of it.
    pub note: Option<&'static str>,
}

/// What is said of a gateway that takes nothing but HTTPS.
const SENT_ON: &str = "The gateway sends plain requests on to HTTPS (tls.redirectToHttps), which this page does not speak: send \
    the request to a node of the service instead, or to the gateway with another client.";

impl Answer {
    /// Whether it sends a plain request on to HTTPS.
    fn is_sent_on(&self) -> bool {
        let to_https = |location: &str| location.starts_with("https://");
        self.status == 308 && self.header("location").is_some_and(to_https)
    }

    /// The first value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// The nodes of a service that can be sent to, by address.
pub fn targets(dashboard: &Dashboard, service: &str) -> Vec<Target> {
    let mut targets: Vec<Target> = nodes(dashboard, service)
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

fn nodes(dashboard: &Dashboard, service: &str) -> Vec<Arc<Node>> {
    let catalog = dashboard.inner.catalog.borrow().clone();
    catalog.as_deref().map(|catalog| catalog.nodes(service).to_vec()).unwrap_or_default()
}

/// Sends to a node of a service, with the call key where it asks for it. Redirects are answers.
///
/// # Errors
/// What a visitor can mend, or why there is no answer.
pub async fn send(dashboard: &Dashboard, service: &str, address: &str, sent: &Sent) -> Result<Answer, String> {
    let of_address = |node: &&Arc<Node>| node.id.http.socket().is_some_and(|socket| socket.to_string() == address);
    let nodes = nodes(dashboard, service);
    let Some(node) = nodes.iter().find(of_address) else {
        return Err(format!("`{address}` is no node of {service} now; choose one of the list"));
    };
    if service != GATEWAY && (dashboard.is_secure(service) || node.takes_tls(NodePort::Http)) {
        return Err(format!(
            "the config has {service} called by TLS, which this page does not speak; send the request through the gateway"
        ));
    }
    let key = dashboard.call_key().filter(|_| gets_key(node));
    let mut answer = exchange(address, key.as_deref(), sent, TIMEOUT).await?;
    let is_for_https = || dashboard.settings().tls.is_some_and(|tls| tls.redirect.is_some());
    if service == GATEWAY && answer.is_sent_on() && is_for_https() {
        answer.note = Some(SENT_ON);
    }
    Ok(answer)
}

/// What a node answers a GET of `path` with, within `patience` and a megabyte; anything but 200 is told as a fault.
///
/// # Errors
/// Why it is not here.
pub async fn fetch(dashboard: &Dashboard, node: &Node, path: &str, patience: Duration) -> Result<Vec<u8>, String> {
    if dashboard.is_secure(&node.id.service) || node.takes_tls(NodePort::Http) {
        return Err("the service is called by TLS, which this page does not speak".to_owned());
    }
    let Some(address) = node.id.http.socket() else { return Err("its node has no HTTP port".to_owned()) };
    let key = dashboard.call_key().filter(|_| gets_key(node));
    let sent = Sent { method: "GET".to_owned(), target: path.to_owned(), ..Sent::default() };
    let answer = exchange(&address.to_string(), key.as_deref(), &sent, patience).await?;
    match answer.status {
        200 => answer.body,
        status => Err(format!("it answers {status}")),
    }
}

/// Whether a node is one of those that share the call key: neither a front door nor another system's.
fn gets_key(node: &Node) -> bool {
    node.id.service != GATEWAY && node.knows_call_key()
}

/// The answer of `address`, its head and its body each within `patience`.
async fn exchange(address: &str, key: Option<&str>, sent: &Sent, patience: Duration) -> Result<Answer, String> {
    let method = match Method::from_bytes(sent.method.as_bytes()) {
        Ok(method) if method != Method::CONNECT => method,
        _ => return Err(format!("`{}` is no method that can be sent", sent.method)),
    };
    if !sent.target.starts_with('/') {
        return Err(format!("the path begins with `/`, not as `{}`", sent.target));
    }
    let client = awc::Client::builder().timeout(patience).disable_redirects().no_default_headers().finish();
    let mut request = client.request(method, format!("http://{address}{}", sent.target)).no_decompress();
    for (name, value) in &sent.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is no name of a header"))?;
        let value = HeaderValue::from_str(value).map_err(|_| format!("header `{name}` holds what no header may"))?;
        request = request.append_header((name, value));
    }
    if let Some(key) = key {
        request = request.insert_header(("Call-Service-Key", key));
    }
    let began = Instant::now();
    // awc's errors are not `Send`, so their text is kept
    let answer = request.send_body(sent.body.clone()).await.map_err(|error| format!("no answer: {error}"))?;
    let mut response = answer.timeout(patience); // of the body: the client's ends with the head
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
        note: None,
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::registry::{HostPort, NodeId, NodeMeta};

    fn node(service: &str, record: Option<&str>) -> Node {
        let at = HostPort::new([127, 0, 0, 1].into(), 1);
        let id = NodeId { service: service.into(), rpc: at, http: at };
        Node::new(id, NodeMeta { record: record.map(Into::into), ..NodeMeta::default() })
    }

    #[test]
    fn only_who_knows_the_call_key_gets_it() {
        assert!(gets_key(&node("user", None)));
        assert!(!gets_key(&node("user", Some("/micro/registry/user/1"))), "Go Micro's");
        assert!(!gets_key(&node(GATEWAY, None)));
    }

    #[test]
    fn a_body_without_an_end_is_waited_for_no_longer() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let origin = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().expect("a connection");
            let read = socket.read(&mut [0; 1_024]).expect("a request");
            assert!(read > 0);
            socket.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").expect("sent");
            // until the other side gives up
            while socket.write_all(b"1\r\na\r\n").is_ok() {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let sent = Sent { method: "GET".into(), target: "/".into(), ..Sent::default() };
        let answer = exchange(&address, None, &sent, Duration::from_millis(300));
        let answer = actix_web::rt::System::new().block_on(answer).expect("a head");
        assert_eq!(answer.status, 200);
        assert!(answer.body.expect_err("no end").contains("timed out"));
        origin.join().expect("the connection is closed");
    }
}
