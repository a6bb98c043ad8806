//! `goms up`: a whole cluster in one process.

use std::net::SocketAddr;

use super::{output, trace_consumer};
use crate::registry::NodeId;

/// The demo service.
pub const SERVICE: &str = "user";
/// Its nodes.
pub const USER_NODES: usize = 3;

/// Tells a newcomer where everything is and what to try.
pub fn greet(nodes: &[&NodeId], https: Option<SocketAddr>, spans: &[(&str, String)], admin: SocketAddr) {
    let http = |service: &str| nodes.iter().find(|id| id.service == service).and_then(|id| id.http.socket());
    let Some(gateway) = http(super::gateway::SERVICE) else { return };
    let users: Vec<String> = nodes
        .iter()
        .filter(|id| id.service == SERVICE)
        .filter_map(|id| id.http.socket())
        .map(|address| format!("http://{address}"))
        .collect();
    let consumer = http(trace_consumer::SERVICE).map(|address| format!("http://{address}")).unwrap_or_default();
    let https = https.map(|address| format!("  gateway, TLS    https://{address}\n")).unwrap_or_default();
    let spans: String =
        spans.iter().map(|(protocol, url)| format!("  {:<16}{url}\n", format!("{protocol} spans"))).collect();
    output::text(&format!(
        "
  gateway         http://{gateway}
{https}  cluster         http://{gateway}/cluster
  user nodes      {}
  trace consumer  {consumer}
{spans}  dashboard       http://{admin}/  (also /healthz /readyz /metrics)

Try it:
  curl -i 'http://{gateway}/api/user/login?a=1&b=3' -d 'username=test&password=test'
and then, from another terminal:
  goms trace search
  goms cluster status

Ctrl-C ends it.

",
        users.join(" ")
    ));
}
