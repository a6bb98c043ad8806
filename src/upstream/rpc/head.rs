//! What a call begins with.

use std::borrow::Cow;
use std::time::Duration;

use http_v1::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE};
use http_v1::uri::{PathAndQuery, Scheme};
use http_v1::{Method, Request, Uri, Version};

use super::RpcRequest;
use super::pool::Lease;
use crate::registry::Node;
use crate::rpc::method::{MethodError, ends_with};
use crate::rpc::schema::SchemaMethod;
use crate::rpc::{Codec, MethodName, metadata, timeout};
use crate::trace::CALL_KEY_HEADER;
use crate::trace::context::TraceContext;
use crate::trace::tracestate;
use crate::upstream::{Forwarded, headers};

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const CALL_KEY: HeaderName = HeaderName::from_static(CALL_KEY_HEADER);

/// What a call begins with, but for what depends on the node.
#[derive(Clone, Debug)]
pub struct RpcHead {
    path: Path,
    fields: HeaderMap,
    /// Its messages are JSON, which nodes that take protobuf only get as that.
    is_json: bool,
}

#[derive(Clone, Debug)]
enum Path {
    /// As it is sent.
    Whole(PathAndQuery),
    /// The package is the node's to tell.
    Of { service: String, method: String },
}

impl RpcHead {
    /// The head of a call that this process makes. `caller` is its member of `tracestate`.
    ///
    /// # Errors
    /// [`MethodError`] where the method's name is none.
    pub(super) fn of(request: &RpcRequest<'_>, caller: Option<&str>) -> Result<Self, MethodError> {
        let name = MethodName::parse(request.method)?;
        let path = if request.method.starts_with('/') {
            let path = PathAndQuery::try_from(request.method);
            Path::Whole(path.map_err(|_| MethodError(request.method.to_owned()))?)
        } else {
            Path::named(&name)?
        };
        let mut fields = HeaderMap::with_capacity(request.metadata.len() + 8);
        let listed = || std::iter::empty::<&[u8]>();
        for (name, value) in &request.metadata {
            if metadata::passes(name)
                && headers::passes_down(name, listed())
                && let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value))
            {
                fields.append(name, value);
            }
        }
        fields.insert(CONTENT_TYPE, request.codec.content_type());
        let lines = request.metadata.iter().filter(|(name, _)| *name == "tracestate").map(|(_, line)| *line);
        sign(&mut fields, request.context, request.call_key, caller, lines);
        if let Some(forwarded) = &request.forwarded {
            forward(&mut fields, forwarded);
        }
        Ok(Self { path, fields, is_json: request.codec == Codec::Json })
    }

    /// The head of a call in protobuf that nobody asked this process for.
    pub(super) fn of_own(path: &str, context: &TraceContext, call_key: Option<&str>) -> Result<Self, MethodError> {
        let whole = PathAndQuery::try_from(path).map_err(|_| MethodError(path.to_owned()))?;
        let mut fields = HeaderMap::with_capacity(4);
        fields.insert(CONTENT_TYPE, Codec::Proto.content_type());
        sign(&mut fields, context, call_key, None, std::iter::empty());
        Ok(Self { path: Path::Whole(whole), fields, is_json: false })
    }

    /// The head of a call that is passed on as it came: its path and those of its fields that may pass. What goms itself says
    /// is put in by [`RpcHead::sign`].
    #[must_use]
    pub fn passed_on(path: PathAndQuery, fields: HeaderMap) -> Self {
        Self { path: Path::Whole(path), fields, is_json: false }
    }

    /// Says whose request it is, who calls and who asked.
    pub fn sign(
        &mut self,
        context: &TraceContext,
        call_key: Option<&str>,
        caller: Option<&str>,
        tracestate: &[HeaderValue],
        forwarded: &Forwarded<'_>,
    ) {
        let lines = tracestate.iter().map(HeaderValue::as_bytes);
        sign(&mut self.fields, context, call_key, caller, lines);
        forward(&mut self.fields, forwarded);
    }

    /// Its fields, but for what depends on the node.
    pub(in crate::upstream) fn fields(&self) -> &HeaderMap {
        &self.fields
    }

    /// The method as Go Micro names it: `Say.Hello`.
    pub(in crate::upstream) fn endpoint(&self) -> String {
        match &self.path {
            Path::Of { service, method } => format!("{service}.{method}"),
            Path::Whole(path) => {
                MethodName::parse(path.path()).map_or_else(|_| path.path().to_owned(), |name| name.endpoint())
            }
        }
    }

    /// The method of a call in JSON.
    pub(super) fn json_method(&self) -> Option<MethodName<'_>> {
        if !self.is_json {
            return None;
        }
        match &self.path {
            Path::Of { service, method } => Some(MethodName { package: "", service, method }),
            Path::Whole(path) => MethodName::parse(path.path()).ok(),
        }
    }

    /// The head of a call of reflection that this one needs: who calls and for whom is the same.
    pub(super) fn of_reflection(&self, path: &'static str) -> Self {
        let mut fields = HeaderMap::with_capacity(4);
        for name in [CALL_KEY, REQUEST_ID, TRACEPARENT] {
            if let Some(value) = self.fields.get(&name) {
                fields.insert(name, value.clone());
            }
        }
        fields.insert(CONTENT_TYPE, Codec::Proto.content_type());
        Self { path: Path::Whole(PathAndQuery::from_static(path)), fields, is_json: false }
    }

    /// The request that a node gets; `form` is the method where its messages are written in protobuf for it.
    pub(super) fn request(
        &self,
        node: &Node,
        lease: &Lease,
        time: Option<Duration>,
        form: Option<&SchemaMethod>,
    ) -> Result<Request<()>, MethodError> {
        let mut uri = http_v1::uri::Parts::default();
        uri.scheme = Some(if lease.is_tls() { Scheme::HTTPS } else { Scheme::HTTP });
        uri.authority = Some(lease.authority().clone());
        uri.path_and_query = Some(match (form, &self.path) {
            (Some(form), _) => form.path().clone(),
            (None, Path::Whole(path)) => path.clone(),
            (None, Path::Of { service, method }) => path_on(node, service, method)?,
        });
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = Uri::from_parts(uri).map_err(|error| MethodError(error.to_string()))?;
        *request.headers_mut() = self.fields.clone();
        let fields = request.headers_mut();
        if !node.knows_call_key() {
            fields.remove(CALL_KEY);
        }
        fields.insert(TE, HeaderValue::from_static("trailers"));
        if form.is_some() {
            fields.insert(CONTENT_TYPE, Codec::Proto.content_type());
        }
        if let Some(time) = time
            && let Ok(time) = HeaderValue::try_from(timeout::format(time))
        {
            fields.insert(GRPC_TIMEOUT, time);
        }
        Ok(request)
    }
}

impl Path {
    fn named(name: &MethodName<'_>) -> Result<Self, MethodError> {
        if name.package.is_empty() {
            return Ok(Self::Of { service: name.service.to_owned(), method: name.method.to_owned() });
        }
        let path = format!("/{}/{}", name.full_service(), name.method);
        PathAndQuery::try_from(path.as_str()).map(Self::Whole).map_err(|_| MethodError(path))
    }
}

/// The path of a method that was named without its package: of the node's services the one that ends so, else the package is
/// the service's name, as Go Micro's programs have it.
fn path_on(node: &Node, service: &str, method: &str) -> Result<PathAndQuery, MethodError> {
    let full = node.meta.rpc_services.iter().find(|full| ends_with(full, service));
    let path = match full {
        Some(full) => format!("/{full}/{method}"),
        None => format!("/{}.{service}/{method}", node.id.service),
    };
    PathAndQuery::try_from(path.as_str()).map_err(|_| MethodError(path))
}

fn sign<'a>(
    fields: &mut HeaderMap,
    context: &TraceContext,
    call_key: Option<&str>,
    caller: Option<&str>,
    tracestate: impl Iterator<Item = &'a [u8]>,
) {
    let mut put = |name: HeaderName, value: &[u8]| {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            fields.insert(name, value);
        }
    };
    if let Some(key) = call_key {
        put(CALL_KEY, key.as_bytes());
    }
    let mut id = uuid::Uuid::encode_buffer();
    put(REQUEST_ID, context.request_id.hyphenated().encode_lower(&mut id).as_bytes());
    put(TRACEPARENT, &context.traceparent_bytes());
    // without a valid `traceparent` beside it a caller's `tracestate` means nothing
    let mut lines = tracestate.filter(|_| context.parent_id.is_some()).peekable();
    let state: Cow<'_, str> = match lines.peek() {
        None => caller.unwrap_or_default().into(),
        Some(_) => tracestate::with_caller(caller, lines).into(),
    };
    if !state.is_empty() {
        put(TRACESTATE, state.as_bytes());
    }
}

fn forward(fields: &mut HeaderMap, forwarded: &Forwarded<'_>) {
    let mut put = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            fields.insert(HeaderName::from_static(name), value);
        }
    };
    match forwarded.chain {
        Some(chain) => put("x-forwarded-for", chain),
        None => put("x-forwarded-for", &forwarded.client.to_string()),
    }
    put("x-forwarded-proto", forwarded.proto);
    put("x-forwarded-host", forwarded.host);
    if let Some(certificate) = forwarded.certificate {
        put("client-cert", certificate);
    }
}
