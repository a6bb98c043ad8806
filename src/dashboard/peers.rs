//! What other gateways see of nodes: each measures for itself who fails and how many requests are under way.
//!
//! `GET /api/balance` tells it of the gateway of this process; the dashboards of the others ask for it while somebody reads, each
//! within a second, and keep it for two. Whoever registers is asked, so they bring the token that only reads; the one that may
//! change goes to no other machine.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::{HttpResponse, web};
use futures_util::{StreamExt, stream};
use maud::{Markup, html};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::Dashboard;
use super::cluster::State;
use super::page::{cut, told};
use super::send::GATEWAY;
use crate::causes::chain;
use crate::figures::grouped;

/// Gateways that are asked, and so many at once.
const MOST: usize = 32;
const AT_ONCE: usize = 8;
/// How long one may take, and bytes of its answer.
const PATIENCE: Duration = Duration::from_secs(1);
const MOST_BYTES: usize = 1 << 20;
/// How long an answer is shown again.
const KEPT: Duration = Duration::from_secs(2);
/// Nodes that a gateway tells of: those in trouble first, then those at work.
const MOST_NODES: usize = 2_000;
/// Rows of a page.
const ROWS: usize = 50;

/// What a gateway sees of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// The node's service.
    pub service: String,
    /// `ip:rpc_ip:http`.
    pub node: String,
    /// Requests of this gateway that it works on.
    pub in_flight: u64,
    /// It failed, and gets nothing from this gateway for so long.
    pub ejected_for_ms: Option<u64>,
    /// Its health checks fail.
    pub is_unwell: bool,
}

impl Seen {
    fn is_ejected(&self) -> bool {
        self.ejected_for_ms.is_some()
    }

    fn state(&self) -> State {
        match (self.is_ejected(), self.is_unwell) {
            (true, _) => State::Ejected,
            (_, true) => State::Unwell,
            _ => State::Ready,
        }
    }
}

/// What `/api/balance` answers: nodes that are at work or in trouble.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Report {
    nodes: Vec<Seen>,
}

/// What another gateway told.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// Its admin port.
    pub admin: SocketAddr,
    /// What it sees.
    pub seen: Result<Vec<Seen>, Silent>,
}

/// Why a gateway tells nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silent {
    /// It did not answer, or not as it should.
    DidNotTell,
    /// It stands elsewhere, and there is only the token that may change.
    NotAsked,
}

/// What others are asked with.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pass {
    /// Everybody with this, if with any.
    All(Option<String>),
    /// Those on this machine with this, and nobody else.
    Here(String, HashSet<IpAddr>),
}

impl Pass {
    /// Of the tokens that read and change, and the addresses of this process's nodes.
    fn new(tokens: (Option<String>, Option<String>), here: HashSet<IpAddr>) -> Self {
        match tokens {
            (None, Some(token)) => Self::Here(token, here),
            (reader, _) => Self::All(reader),
        }
    }

    /// What one is asked with.
    fn of(&self, admin: SocketAddr) -> Result<Option<&str>, Silent> {
        match self {
            Self::All(reader) => Ok(reader.as_deref()),
            Self::Here(token, here) if admin.ip().is_loopback() || here.contains(&admin.ip()) => Ok(Some(token)),
            Self::Here(..) => Err(Silent::NotAsked),
        }
    }
}

/// What they told last.
#[derive(Default)]
pub(super) struct Kept(Mutex<Option<(Instant, Arc<Vec<Peer>>)>>);

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config.route("/api/balance", web::get().to(balance));
}

async fn balance(dashboard: web::Data<Dashboard>) -> HttpResponse {
    match dashboard.inner.gateway.get() {
        Some(gateway) => HttpResponse::Ok().json(report((gateway.balance)())),
        None => HttpResponse::NotFound().body("this process runs no gateway\n"),
    }
}

fn report(services: Vec<crate::balance::ServiceView>) -> Report {
    let nodes = services.into_iter().flat_map(|service| service.nodes);
    let seen = nodes.map(|view| Seen {
        service: view.node.id.service.clone(),
        node: view.node.id.to_string(),
        in_flight: view.in_flight as u64,
        ejected_for_ms: view.ejected_for.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
        is_unwell: view.is_unwell,
    });
    let mut nodes: Vec<Seen> = seen.filter(|seen| seen.state() != State::Ready || seen.in_flight > 0).collect();
    nodes.sort_by_key(|seen| seen.state());
    nodes.truncate(MOST_NODES);
    Report { nodes }
}

/// What the other gateways of the cluster see now, or saw some seconds ago.
pub(super) async fn others(dashboard: &Dashboard) -> Arc<Vec<Peer>> {
    let mut kept = dashboard.inner.peers.0.lock().await;
    if let Some((_, peers)) = kept.as_ref().filter(|(asked, _)| asked.elapsed() < KEPT) {
        return peers.clone();
    }
    let own: HashSet<String> = dashboard.inner.admin.own_nodes().into_iter().map(|report| report.node).collect();
    let catalog = dashboard.inner.catalog.borrow().clone();
    let gateways = catalog.iter().flat_map(|catalog| catalog.nodes(GATEWAY).to_vec());
    let others = gateways.filter(|node| !own.contains(&node.id.to_string())).filter_map(|node| node.meta.admin);
    let others: Vec<SocketAddr> = others.take(MOST).collect();
    let here = own.iter().filter_map(|node| address(node).parse::<SocketAddr>().ok()).map(|address| address.ip());
    let pass = Pass::new(dashboard.inner.doorkeeper.tokens(), here.collect());
    let client = match others.is_empty() {
        true => None,
        false => reqwest::Client::builder()
            .timeout(PATIENCE)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .ok(),
    };
    let asked = others.into_iter().map(|admin| ask(client.as_ref(), admin, pass.of(admin)));
    let peers: Arc<Vec<Peer>> = Arc::new(stream::iter(asked).buffered(AT_ONCE).collect().await);
    *kept = Some((Instant::now(), peers.clone()));
    peers
}

async fn ask(client: Option<&reqwest::Client>, admin: SocketAddr, pass: Result<Option<&str>, Silent>) -> Peer {
    let (client, token) = match (client, pass) {
        (_, Err(silent)) => return Peer { admin, seen: Err(silent) },
        (None, Ok(_)) => return Peer { admin, seen: Err(Silent::DidNotTell) },
        (Some(client), Ok(token)) => (client, token),
    };
    let seen = match told_by(client, admin, token).await {
        Ok(report) => Ok(report.nodes),
        Err(error) => {
            log::debug!("a gateway does not tell what it sees address={admin} error=\"{}\"", chain(&*error));
            Err(Silent::DidNotTell)
        }
    };
    Peer { admin, seen }
}

/// `MOST_BYTES` of an answer, as what it should be.
async fn told_by(
    client: &reqwest::Client,
    admin: SocketAddr,
    token: Option<&str>,
) -> Result<Report, Box<dyn std::error::Error + Send + Sync>> {
    let request = client.get(format!("http://{admin}/api/balance"));
    let request = match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    };
    let mut answer = request.send().await?.error_for_status()?;
    let mut bytes = Vec::new();
    while let Some(part) = answer.chunk().await? {
        bytes.extend_from_slice(&part);
        if bytes.len() > MOST_BYTES {
            return Err(format!("it tells more than {MOST_BYTES} bytes").into());
        }
    }
    Ok(serde_json::from_slice(&bytes)?)
}

/// What other gateways see of the nodes of a service.
pub(super) fn part(peers: &[Peer], service: &str) -> Markup {
    let seen = peers.iter().flat_map(|peer| peer.seen.iter().flatten().map(move |seen| (peer.admin, seen)));
    let mut seen: Vec<(SocketAddr, &Seen)> = seen.filter(|(_, seen)| seen.service == service).collect();
    seen.sort_by_key(|(admin, seen)| (seen.state(), *admin));
    let silent = |why: Silent| -> Vec<String> {
        let silent = peers.iter().filter(|peer| peer.seen.as_ref().err() == Some(&why));
        silent.map(|peer| peer.admin.to_string()).take(5).collect()
    };
    let (mute, not_asked) = (silent(Silent::DidNotTell), silent(Silent::NotAsked));
    html! {
        @if !peers.is_empty() {
            section.card aria-label="As other gateways see them" {
                header { h2 { "As other gateways see them" } span.soft { "nodes at work or in trouble; each gateway counts for itself" } }
                @if seen.is_empty() {
                    div.body.soft { "Nothing of note." }
                } @else {
                    div.scroll { table {
                        thead { tr { th scope="col" { "Node" } th scope="col" { "As seen by gateway" } th scope="col" { "State" } th.num scope="col" { "In flight" } } }
                        tbody { @for (admin, seen) in seen.iter().take(ROWS) { tr {
                            td.mono { (told(address(&seen.node))) }
                            td.mono { a href={ "http://" (admin) "/" } rel="noreferrer" { (admin) } }
                            td { span class=(seen.state().class()) title=(seen.state().meaning()) { (seen.state().word()) } }
                            td.num { (grouped(seen.in_flight)) }
                        } } }
                    } }
                    @if seen.len() > ROWS { div.body.soft { (grouped((seen.len() - ROWS) as u64)) " more" } }
                }
                @if !not_asked.is_empty() {
                    div.body.soft { "Not asked: " (not_asked.join(", ")) ". Have " code { "admin.readOnlyToken" } " in the config: the token that may change is brought to no other machine." }
                }
                @if !mute.is_empty() {
                    div.body.soft { "Did not tell: " (mute.join(", ")) ". Its admin port is not reached from here, or wants another login." }
                }
            }
        }
    }
}

/// `ip:http` of a node's name.
fn address(node: &str) -> &str {
    cut(node.rsplit('_').next().unwrap_or(node), 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_stands_first_with_who_sees_it() {
        let seen = |node: &str, ejected, in_flight| Seen {
            service: "user".into(),
            node: node.into(),
            in_flight,
            ejected_for_ms: ejected,
            is_unwell: false,
        };
        let peer = |port: u16, seen| Peer { admin: SocketAddr::from(([127, 0, 0, 1], port)), seen };
        let other = Seen { service: "order".into(), ..seen("x_9.9.9.9:9", Some(1), 0) };
        let peers = [
            peer(1, Ok(vec![seen("a_1.1.1.1:1", None, 3), seen("<b>_<i>", Some(5), 0), other])),
            peer(2, Err(Silent::DidNotTell)),
            peer(3, Err(Silent::NotAsked)),
        ];
        let text = part(&peers, "user").into_string();
        assert!(text.find("ejected") < text.find("1.1.1.1:1") && text.contains("127.0.0.1:1"), "{text}");
        assert!(
            !text.contains("<i>") && !text.contains("9.9.9.9") && text.contains("Did not tell: 127.0.0.1:2."),
            "{text}"
        );
        assert!(text.contains("Not asked: 127.0.0.1:3.") && text.contains("admin.readOnlyToken"), "{text}");
        assert_eq!(part(&[], "user").into_string(), "");
    }

    #[test]
    fn the_token_that_may_change_goes_to_no_other_machine() {
        let (reader, token) = (Some("reads".to_owned()), Some("changes".to_owned()));
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let (near, own, far) = (address("127.0.0.1:1"), address("10.0.0.1:1"), address("10.0.0.2:1"));
        let of = |tokens: (&Option<String>, &Option<String>)| {
            let pass = Pass::new((tokens.0.clone(), tokens.1.clone()), HashSet::from([own.ip()]));
            [near, own, far].map(|admin| pass.of(admin).map(|token| token.map(str::to_owned)))
        };
        assert_eq!(of((&reader, &token)), [(); 3].map(|()| Ok(reader.clone())));
        assert_eq!(of((&None, &token)), [Ok(token.clone()), Ok(token.clone()), Err(Silent::NotAsked)]);
        assert_eq!(of((&reader, &None)), [(); 3].map(|()| Ok(reader.clone())));
        assert_eq!(of((&None, &None)), [(); 3].map(|()| Ok(None)));
    }
}
