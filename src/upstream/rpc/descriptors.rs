//! Where the messages of a service are known from that takes protobuf only, for callers with JSON.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::RpcError;
use super::descriptor_file::DescriptorFile;
use super::head::RpcHead;
use super::pool::{Place, Pool};
use super::reflection::{self, ReflectionError};
use crate::registry::Node;
use crate::rpc::MethodName;
use crate::rpc::method::ends_with;
use crate::rpc::schema::{Schema, SchemaError, SchemaMethod};
use crate::upstream::Policy;

/// Services whose messages are kept; those of a gateway are far fewer, and one that names others all the time fills no memory.
const MOST: usize = 512;
/// So long nobody is asked again who could not tell.
const AGAIN: Duration = Duration::from_secs(1);
/// So long nobody is asked again for a method that was not among those that it told.
const AGAIN_UNKNOWN: Duration = Duration::from_secs(5);
/// How callers with JSON call a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Descriptors {
    /// With protobuf where its nodes tell that they serve the service of gRPC and name none of its methods as one that takes
    /// JSON; their messages are read from them by reflection.
    #[default]
    Auto,
    /// With JSON (`application/grpc+json`), whatever its nodes tell.
    Json,
    /// With protobuf, with messages read by reflection, whatever they tell.
    Reflection,
    /// With protobuf, with the messages of this file.
    File(Arc<DescriptorFile>),
}

/// Why the messages of a method are not known. The call was not sent.
#[derive(Debug, thiserror::Error)]
pub enum UnknownMessages {
    /// The service takes protobuf, and nobody says what its messages are.
    #[error(
        "it takes protobuf, and its nodes do not tell its messages; let them serve gRPC reflection, or name a file in \
         `upstreams: {{ {0}: {{ descriptors: FILE }} }}`"
    )]
    Untold(String),
    /// It has no such method.
    #[error("it has no method `{method}`; it has {known}")]
    Method {
        /// As asked.
        method: String,
        /// Those that there are.
        known: String,
    },
    /// The node that should tell did not.
    #[error("its messages cannot be read by reflection")]
    Away(#[source] ReflectionError),
    /// The node that should tell did not in time.
    #[error("its messages were not told by reflection within {0:?}")]
    Late(Duration),
    /// What it told is more than may be.
    #[error("reflection told more than {0} files or {1} bytes")]
    TooMany(usize, usize),
    /// What it told makes no sense.
    #[error("what reflection told of its messages makes no sense")]
    Senseless(#[source] SchemaError),
    /// What it told is no answer of reflection.
    #[error("its answers by reflection are none")]
    Malformed(#[source] prost::DecodeError),
}

/// The messages of services, as far as they were asked for. All workers of a process share one.
#[derive(Debug, Default)]
pub struct Schemas {
    /// By service, version and service of gRPC.
    known: Mutex<HashMap<String, Arc<Slot>>>,
}

/// What is known of one service of gRPC at one version.
#[derive(Debug, Default)]
struct Slot {
    /// Held by who asks; the others wait for what it hears.
    asking: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    schema: Option<Arc<Schema>>,
    /// What those told that started before: nodes of one version may be of several builds.
    before: Option<Arc<Schema>>,
    /// When the newest node started that was asked: one that started later may have others.
    started_ms: i64,
    /// When somebody was asked last.
    asked: Option<Instant>,
    failed: Option<Arc<UnknownMessages>>,
}

impl Slot {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner) // every state of it is a good one
    }
}

impl State {
    /// What is known without asking; `None`: somebody must be asked.
    fn answer(&self, node: &Node, name: &MethodName<'_>) -> Option<Result<SchemaMethod, Arc<UnknownMessages>>> {
        let asked_before = |wait: Duration| self.asked.is_some_and(|asked| asked.elapsed() < wait);
        if let Some(method) = self.method(node, name)
            && (node.meta.started_ms <= self.started_ms || (self.failed.is_some() && asked_before(AGAIN)))
        {
            return Some(Ok(method));
        }
        if let Some(error) = self.failed.as_ref().filter(|_| asked_before(AGAIN)) {
            return Some(Err(error.clone()));
        }
        let schema = self.schema.as_ref()?;
        let is_unknown = self.method(node, name).is_none() && asked_before(AGAIN_UNKNOWN);
        is_unknown.then(|| Err(Arc::new(unknown(schema, name))))
    }

    /// A method as far as it is known, of this node or of those that it may be like.
    fn method(&self, node: &Node, name: &MethodName<'_>) -> Option<SchemaMethod> {
        let is_older = node.meta.started_ms < self.started_ms;
        let told = self.schema.as_ref().and_then(|schema| schema.method(name));
        told.or_else(|| self.before.as_ref().filter(|_| is_older)?.method(name))
    }

    /// Takes over what a node told.
    fn learn(&mut self, node: &Node, schema: Schema) {
        let schema = Some(Arc::new(schema));
        let started_ms = node.meta.started_ms;
        if started_ms < self.started_ms {
            self.before = schema;
        } else {
            let known = std::mem::replace(&mut self.schema, schema);
            if started_ms > self.started_ms {
                self.before = known;
            }
            self.started_ms = started_ms;
        }
        self.failed = None;
    }
}

fn unknown(schema: &Schema, name: &MethodName<'_>) -> UnknownMessages {
    UnknownMessages::Method { method: name.endpoint(), known: schema.listed() }
}

impl Schemas {
    fn slot(&self, node: &Node, name: &MethodName<'_>) -> Arc<Slot> {
        let key = format!("{}\n{}\n{}\n{}", node.id.service, node.meta.version, name.package, name.service);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST && !known.contains_key(&key) {
            let oldest = known.iter().min_by_key(|(_, slot)| slot.state().asked).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| known.remove(&oldest));
        }
        known.entry(key).or_default().clone()
    }

    /// The method of a node, asked for by `head` on a connection of `pool` where it is not known yet.
    async fn of_node(
        &self,
        name: &MethodName<'_>,
        (node, place): (&Arc<Node>, &Place),
        (pool, head, policy): (&std::rc::Rc<Pool>, &RpcHead, &Policy),
    ) -> Result<SchemaMethod, Arc<UnknownMessages>> {
        let slot = self.slot(node, name);
        if let Some(answer) = slot.state().answer(node, name) {
            return answer;
        }
        let _asking = slot.asking.lock().await;
        if let Some(answer) = slot.state().answer(node, name) {
            return answer;
        }
        let told = reflection::ask(pool, (node, place), head, name, policy).await;
        let mut state = slot.state();
        state.asked = Some(Instant::now());
        match told {
            Ok(schema) => {
                log::debug!("messages read by reflection service={} node={}", node.id.service, node.id);
                let found = schema.method(name).ok_or_else(|| Arc::new(unknown(&schema, name)));
                state.learn(node, schema);
                found
            }
            Err(error) => {
                let error = Arc::new(error);
                // what was known before may still hold
                if let Some(method) = state.schema.as_ref().and_then(|schema| schema.method(name)) {
                    log::warn!(
                        "messages not read again, the ones before are used service={} error=\"{}\"",
                        node.id.service,
                        crate::causes::chain(&*error)
                    );
                    state.started_ms = state.started_ms.max(node.meta.started_ms);
                    return Ok(method);
                }
                if state.failed.is_none() {
                    log::warn!(
                        "messages not read by reflection service={} node={} error=\"{}\"",
                        node.id.service,
                        node.id,
                        crate::causes::chain(&*error)
                    );
                }
                state.failed = Some(error.clone());
                Err(error)
            }
        }
    }
}

/// Whether a node takes JSON for a method, as far as it tells: Go Micro's nodes name no service of gRPC and take it, those of
/// goms name the methods that take it as endpoints.
fn takes_json(node: &Node, name: &MethodName<'_>) -> bool {
    let is_of = |full: &String| {
        ends_with(full, name.service)
            && (name.package.is_empty()
                || full.strip_suffix(name.service).is_some_and(|before| before.trim_end_matches('.') == name.package))
    };
    let is_endpoint =
        |endpoint: &String| endpoint.rsplit_once('.').is_some_and(|(service, _)| ends_with(service, name.service));
    !node.meta.rpc_services.iter().any(is_of) || node.meta.endpoints.iter().any(is_endpoint)
}

/// How a call with JSON is written for a node: `None` as it is, else in protobuf, as a method of this schema.
///
/// # Errors
/// [`RpcError::Messages`]; nothing was sent.
pub(super) async fn form(
    schemas: &Schemas,
    (node, place): (&Arc<Node>, &Place),
    (pool, head, policy): (&std::rc::Rc<Pool>, &RpcHead, &Policy),
) -> Result<Option<SchemaMethod>, RpcError> {
    let Some(name) = head.json_method() else { return Ok(None) };
    let failed = |source: Arc<UnknownMessages>| RpcError::Messages { node: node.clone(), source };
    match &policy.descriptors {
        Descriptors::Json => return Ok(None),
        Descriptors::Auto if takes_json(node, &name) => return Ok(None),
        Descriptors::Auto | Descriptors::Reflection => {}
        Descriptors::File(file) => {
            let found = file.schema().method(&name).map(Some);
            return found.ok_or_else(|| failed(Arc::new(unknown(&file.schema(), &name))));
        }
    }
    schemas.of_node(&name, (node, place), (pool, head, policy)).await.map(Some).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{HostPort, NodeId, NodeMeta};

    fn node(endpoints: &[&str], services: &[&str]) -> Node {
        let at = HostPort::new(std::net::Ipv4Addr::LOCALHOST.into(), 1);
        let mut meta = NodeMeta::default();
        let all = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        meta.tell_methods(all(endpoints), all(services));
        Node::new(NodeId { service: "greeter".to_owned(), rpc: at, http: at }, meta)
    }

    #[test]
    fn nodes_tell_whether_they_take_json() {
        for (endpoints, services, method, takes) in [
            (&["Say.Hello"][..], &["greeter.Say"][..], "Say.Hello", true),
            (&["Say.Hello"], &["greeter.Say"], "Say.Bye", true), // it says itself that there is none
            (&[], &["greeter.Say"], "Say.Hello", false),
            (&[], &["greeter.Say"], "/greeter.Say/Hello", false),
            (&[], &["a.Say", "b.Say"], "/b.Say/Hello", false),
            (&[], &["greeter.Say"], "/other.Say/Hello", true),
            (&[], &["greeter.Say"], "Essay.Hello", true),
            (&["Talk.Hello"], &["greeter.Say", "greeter.Talk"], "Say.Hello", false),
            (&["Say.Hello"], &[], "Say.Hello", true), // Go Micro
            (&[], &[], "Say.Hello", true),
        ] {
            let name = MethodName::parse(method).unwrap();
            assert_eq!(takes_json(&node(endpoints, services), &name), takes, "{endpoints:?} {services:?} {method}");
        }
    }

    #[test]
    fn what_is_known_holds_beside_what_failed() {
        let check = MethodName::parse("Health.Check").unwrap();
        let other = MethodName::parse("Health.Other").unwrap();
        let schema = || Schema::decode(tonic_health::pb::FILE_DESCRIPTOR_SET).unwrap();
        let mut state = State::default();
        assert!(state.answer(&node(&[], &[]), &check).is_none(), "nobody told");
        state.learn(&node(&[], &[]), schema());
        let failed = UnknownMessages::Untold("greeter".to_owned());
        (state.asked, state.failed) = (Some(Instant::now()), Some(Arc::new(failed)));
        assert!(matches!(state.answer(&node(&[], &[]), &check), Some(Ok(_))));
        assert!(matches!(state.answer(&node(&[], &[]), &other), Some(Err(_))));
    }

    #[test]
    fn nodes_of_an_older_build_keep_their_methods() {
        let at = |started_ms| {
            let mut node = node(&[], &[]);
            node.meta.started_ms = started_ms;
            node
        };
        let check = MethodName::parse("Health.Check").unwrap();
        let health = || Schema::decode(tonic_health::pb::FILE_DESCRIPTOR_SET).unwrap();
        let empty = || {
            let file = prost_reflect::prost_types::FileDescriptorProto {
                name: Some("empty.proto".to_owned()),
                ..Default::default()
            };
            Schema::of_files(vec![file]).unwrap()
        };
        let mut state = State { asked: Some(Instant::now()), ..State::default() };
        state.learn(&at(1), health());
        state.learn(&at(2), empty());
        assert!(matches!(state.answer(&at(1), &check), Some(Ok(_))));
        assert!(matches!(state.answer(&at(2), &check), Some(Err(_))), "the new build has it not");
        // asked again, the older one does not take the newer one's place
        state.learn(&at(1), health());
        assert_eq!(state.started_ms, 2);
        assert!(matches!(state.answer(&at(2), &check), Some(Err(_))));
    }

    #[test]
    fn schemas_are_bounded() {
        let schemas = Schemas::default();
        for version in 0..MOST + 10 {
            let mut node = node(&[], &[]);
            node.meta.version = version.to_string();
            schemas.slot(&node, &MethodName::parse("Say.Hello").unwrap());
        }
        assert_eq!(schemas.known.lock().unwrap().len(), MOST);
    }
}
