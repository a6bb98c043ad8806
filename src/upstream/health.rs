//! Active health checks: nodes are asked now and then, and one that does not answer well gets no requests while another
//! one is left, whether or not any request found out.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::call::target;
use super::http1::{HttpError, Outgoing, Pool, RequestHead, Times};
use super::tls::ClientTls;
use crate::balance::Balancer;
use crate::registry::{Node, NodeId};
use crate::shutdown::Shutdown;
use crate::trace::CALL_KEY_HEADER;

/// How exactly the times between checks are kept, and how soon a new node is asked.
const TICK: Duration = Duration::from_millis(100);
/// How soon it is seen that there is something to do.
const RARE_TICK: Duration = Duration::from_secs(1);
/// Checks at once: a thousand nodes that hang must not take a thousand sockets.
const AT_ONCE: usize = 64;
/// Longer than a check takes, shorter than checks are apart: no connection is kept for long.
const IDLE: Duration = Duration::from_secs(1);

/// How the nodes of a service are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// The path of a `GET`; begins with `/`. Answers of 200 to 399 are good.
    pub path: String,
    /// From the end of one check to the next.
    pub every: Duration,
    /// How long a node may take for the answer's head.
    pub timeout: Duration,
    /// After so many bad answers in a row a node is left out.
    pub failures: u32,
    /// After so many good ones in a row it is back.
    pub passes: u32,
    /// How the service is called by TLS, if it is.
    pub tls: Option<Arc<ClientTls>>,
    /// How nodes are called that say that they take TLS, where `tls` says nothing.
    pub told_tls: Option<Arc<ClientTls>>,
}

impl HealthCheck {
    /// A check of this path with the usual times.
    #[must_use]
    pub fn new(path: &str) -> Self {
        let (every, timeout) = (Duration::from_secs(5), Duration::from_secs(1));
        // two: one lost answer is no failure, and a node that is back should work at once
        Self { path: path.to_owned(), every, timeout, failures: 2, passes: 1, tls: None, told_tls: None }
    }
}

/// Which services are asked, and what signs the question.
#[derive(Clone, Debug, Default)]
struct Wanted {
    checks: HashMap<String, HealthCheck>,
    call_key: Option<String>,
}

/// Asks the nodes of a process's services. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct HealthChecks {
    wanted: Arc<Mutex<Wanted>>,
}

/// What is known of a node.
#[derive(Debug)]
struct Known {
    due: Instant,
    is_asked: bool,
    is_well: bool,
    /// Answers in a row that say otherwise.
    others: u32,
}

type Nodes = RefCell<HashMap<NodeId, Known>>;

impl HealthChecks {
    /// Asks these from now on.
    pub fn configure(&self, checks: HashMap<String, HealthCheck>, call_key: Option<String>) {
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = Wanted { checks, call_key };
    }

    /// Asks until the end of the process. Must be called within a `LocalSet`, as on actix's threads.
    pub fn start(&self, balancer: Arc<Balancer>, shutdown: &Shutdown) {
        let (wanted, ending) = (self.wanted.clone(), shutdown.clone());
        shutdown.spawn_local(async move {
            tokio::select! {
                () = ending.begun() => {}
                () = run(&wanted, &balancer) => {}
            }
        });
    }
}

async fn run(wanted: &Mutex<Wanted>, balancer: &Balancer) {
    let (pool, nodes) = (Pool::new(IDLE), Nodes::default());
    let mut running = FuturesUnordered::new();
    loop {
        let now = wanted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let named = now.checks.iter();
        let there: Vec<_> = named.map(|(service, check)| (check, web_nodes(balancer, service))).collect();
        forget_others(there.iter().flat_map(|(_, nodes)| nodes), balancer, &nodes);
        for (check, node) in there.iter().flat_map(|(check, nodes)| nodes.iter().map(move |node| (*check, node))) {
            if running.len() < AT_ONCE && take_if_due(&nodes, &node.id) {
                running.push(ask(pool.clone(), balancer, &nodes, node.clone(), check.clone(), now.call_key.clone()));
            }
        }
        let tick = tokio::time::sleep(if now.checks.is_empty() { RARE_TICK } else { TICK });
        tokio::pin!(tick);
        loop {
            tokio::select! {
                () = &mut tick => break,
                Some(()) = running.next() => {}
            }
        }
    }
}

/// Those that plain HTTP reaches.
fn web_nodes(balancer: &Balancer, service: &str) -> Vec<Arc<Node>> {
    balancer.nodes(service).into_iter().filter(|node| node.takes_http()).collect()
}

/// Nodes that left, or that nobody wants to be asked any more, are well again.
fn forget_others<'n>(there: impl Iterator<Item = &'n Arc<Node>>, balancer: &Balancer, nodes: &Nodes) {
    let there: HashSet<&NodeId> = there.map(|node| &node.id).collect();
    nodes.borrow_mut().retain(|id, known| {
        let is_there = there.contains(id);
        if !is_there && !known.is_well {
            balancer.report(id, true);
        }
        is_there
    });
}

fn take_if_due(nodes: &Nodes, id: &NodeId) -> bool {
    let mut nodes = nodes.borrow_mut();
    if !nodes.contains_key(id) {
        let new = Known { due: Instant::now(), is_asked: false, is_well: true, others: 0 };
        nodes.insert(id.clone(), new);
    }
    nodes.get_mut(id).is_some_and(|known| {
        let is_due = !known.is_asked && known.due <= Instant::now();
        known.is_asked |= is_due;
        is_due
    })
}

async fn ask(
    pool: Rc<Pool>,
    balancer: &Balancer,
    nodes: &Nodes,
    node: Arc<Node>,
    check: HealthCheck,
    call_key: Option<String>,
) {
    let answered = status(&pool, &node, &check, call_key.as_deref()).await;
    let is_good = matches!(answered, Ok(200..400));
    let mut nodes = nodes.borrow_mut();
    let Some(known) = nodes.get_mut(&node.id) else { return };
    (known.is_asked, known.due) = (false, Instant::now() + check.every);
    known.others = if is_good == known.is_well { 0 } else { known.others + 1 };
    if known.others < if is_good { check.passes } else { check.failures } {
        return;
    }
    if known.others > 0 {
        (known.is_well, known.others) = (is_good, 0);
        let service = &node.id.service;
        match answered {
            _ if is_good => log::info!("node is well again service={service} node={}", node.id),
            Ok(status) => log::warn!("node is unwell service={service} node={} status={status}", node.id),
            Err(error) => log::warn!("node is unwell service={service} node={} error=\"{error}\"", node.id),
        }
    }
    balancer.report(&node.id, known.is_well);
}

async fn status(pool: &Rc<Pool>, node: &Node, check: &HealthCheck, call_key: Option<&str>) -> Result<u16, HttpError> {
    let mut head = RequestHead::new(pool.buffer(), "GET", &check.path, "")?;
    head.host(node)?;
    head.field("user-agent", b"goms health check")?;
    if let Some(key) = call_key.filter(|_| node.knows_call_key()) {
        head.field(CALL_KEY_HEADER, key.as_bytes())?;
    }
    let times = Times { connect: check.timeout, head: check.timeout };
    let answer = pool
        .send(&target(node, (check.tls.as_deref(), check.told_tls.as_deref()))?, &head, &Outgoing::NoBody, times)
        .await?;
    Ok(answer.head.status()) // its body is not read: the connection is closed
}
