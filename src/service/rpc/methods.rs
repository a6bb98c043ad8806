//! What a service answers by RPC, and how a call finds its method.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use super::stream::Streaming;
use crate::rpc::generated::GrpcService;
use crate::rpc::method::ends_with;
use crate::rpc::{Codec, MethodName};
use crate::service::{Context, ServiceError};

/// The message that a method answers with.
pub(super) type Reply = Pin<Box<dyn Future<Output = Result<Bytes, ServiceError>>>>;

/// A method whose types are forgotten.
#[derive(Clone)]
pub(super) enum Method {
    /// One message each way.
    Unary(Arc<dyn Unary>),
    /// Any other kind.
    Streaming(Arc<dyn Streaming>),
}

impl Method {
    /// The codecs that it reads and writes.
    pub fn codecs(&self) -> &'static [Codec] {
        match self {
            Self::Unary(method) => method.codecs(),
            Self::Streaming(method) => method.codecs(),
        }
    }
}

/// One message each way.
pub(super) trait Unary: Send + Sync {
    /// The codecs that it reads and writes.
    fn codecs(&self) -> &'static [Codec];
    /// Runs it on a message.
    fn call(&self, ctx: Context, codec: Codec, message: &Bytes) -> Reply;
}

/// What a service answers by RPC.
#[derive(Clone, Default)]
pub(in crate::service) struct Methods {
    /// Service (`Say`) → method (`Hello`).
    known: HashMap<String, HashMap<String, Method>>,
    /// `greeter.Say`, where the author named a package.
    full_names: BTreeSet<String>,
    /// `Say`, where not.
    short_names: BTreeSet<String>,
    /// Services that tonic generated, by their full names.
    pub(super) generated: HashMap<String, Generated>,
}

/// A service that tonic generated.
#[derive(Clone)]
pub(super) struct Generated {
    /// It.
    pub service: Arc<dyn GrpcService>,
    /// Its name.
    pub name: &'static str,
    /// Callers need no call key, and their calls are not traced.
    pub is_open: bool,
}

/// What a path names.
#[derive(Clone)]
pub(super) enum Found<'a> {
    /// A method of the service's author.
    Method(&'a Method),
    /// A service that does the rest itself.
    Generated(&'a Generated),
}

impl Methods {
    pub(super) fn add(&mut self, name: &str, method: Method) {
        match MethodName::parse(name) {
            Ok(parsed) => {
                if parsed.package.is_empty() {
                    self.short_names.insert(parsed.service.to_owned());
                } else {
                    self.full_names.insert(parsed.full_service());
                }
                let methods = self.known.entry(parsed.service.to_owned()).or_default();
                methods.insert(parsed.method.to_owned(), method);
            }
            // the service works without it, and says so
            Err(error) => log::error!("a method is left out: {error}"),
        }
    }

    /// `Say.Hello` of every method, sorted.
    pub(in crate::service) fn endpoints(&self) -> Vec<String> {
        let each = self.known.iter().flat_map(|(service, methods)| methods.keys().map(move |method| (service, method)));
        let mut all: Vec<String> = each.map(|(service, method)| format!("{service}.{method}")).collect();
        all.sort();
        all
    }

    /// Those of them that are streams.
    pub(in crate::service) fn streams(&self) -> Vec<String> {
        let each = self.known.iter().flat_map(|(service, methods)| methods.iter().map(move |known| (service, known)));
        let streams = each.filter(|(_, (_, method))| matches!(method, Method::Streaming(_)));
        let mut all: Vec<String> = streams.map(|(service, (method, _))| format!("{service}.{method}")).collect();
        all.sort();
        all
    }

    /// The full names of its services, sorted.
    pub(in crate::service) fn services(&self, of: &str) -> Vec<String> {
        let mut all = self.full_names.clone();
        all.extend(self.short_names.iter().map(|short| format!("{of}.{short}")));
        all.extend(self.generated.values().filter(|known| !known.is_open).map(|known| known.name.to_owned()));
        all.into_iter().collect()
    }

    /// The generated service of this very name.
    pub(super) fn generated(&self, full: &str) -> Option<&Generated> {
        self.generated.get(full)
    }

    pub(super) fn find(&self, name: &MethodName<'_>) -> Option<Found<'_>> {
        if let Some(method) = self.known.get(name.service).and_then(|methods| methods.get(name.method)) {
            return Some(Found::Method(method));
        }
        let ends_so = || self.generated.values().find(|known| ends_with(known.name, name.service));
        let generated = self.generated.get(&name.full_service()).or_else(ends_so)?;
        Some(Found::Generated(generated))
    }
}
