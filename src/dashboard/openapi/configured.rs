//! What the gateway's config says: which paths lead to which service.

use serde_json::{Map, Value, json};

use super::document::{ANY, Document, METHODS, Operation, Source, shape};
use crate::gateway::{Outcome, Rule, Settings};
use crate::rpc::MethodName;

/// The tag of what a gateway answers itself.
const GATEWAY: &str = "gateway";

/// A route, as it leads from a path of the gateway to one of a service.
#[derive(Clone, Debug)]
pub struct Anchor {
    service: String,
    /// In lower case; empty: any.
    methods: Vec<String>,
    /// As clients ask; ends with `/*` where it is open.
    path: String,
    /// The same as OpenAPI can say it: what is open has a name in braces for the rest.
    shown: String,
    /// As the service gets it.
    own: String,
    /// The method by RPC: `Say.Hello`.
    rpc: Option<String>,
    detail: Map<String, Value>,
}

/// Every route in force that leads to something.
pub fn anchors(settings: &Settings) -> Vec<Anchor> {
    settings.rules().iter().flat_map(of_rule).collect()
}

fn of_rule(rule: &Rule) -> Vec<Anchor> {
    let path = rule.when.path.as_str().to_owned();
    let methods: Vec<String> = rule.when.methods.iter().map(|method| method.to_lowercase()).collect();
    let methods: Vec<String> = methods.into_iter().filter(|method| METHODS.contains(&method.as_str())).collect();
    let mut detail = Map::new();
    detail.insert("x-goms-route".to_owned(), rule.name.clone().into());
    if let Some(host) = &rule.when.host {
        detail.insert("x-goms-host".to_owned(), host.to_string().into());
    }
    let asks: Map<String, Value> =
        rule.terms.shown().into_iter().map(|(key, how)| (key.to_owned(), how.into())).collect();
    if !asks.is_empty() {
        detail.insert("x-goms-asks".to_owned(), asks.into());
    }
    let fields = rule.when.headers.iter().map(|field| ("header", field));
    let fields = fields.chain(rule.when.query.iter().map(|field| ("query", field)));
    let needed: Vec<Value> = fields
        .map(|(place, field)| {
            let schema =
                field.value.as_ref().map_or_else(|| json!({"type": "string"}), |value| json!({"const": value}));
            json!({"name": field.name, "in": place, "required": true, "schema": schema})
        })
        .collect();
    if !needed.is_empty() {
        detail.insert("parameters".to_owned(), needed.into());
    }
    let shown = path.strip_suffix("/*").map_or_else(|| path.clone(), |before| format!("{before}/{{rest}}"));
    let one = |service: &str, own: String, rpc: Option<String>, detail: Map<String, Value>| Anchor {
        service: service.to_owned(),
        methods: methods.clone(),
        path: path.clone(),
        shown: shown.clone(),
        own,
        rpc,
        detail,
    };
    match &rule.then {
        Outcome::Call(call) => {
            let own = call.rewrite.as_ref().map_or_else(|| path.clone(), |rewrite| rewrite.as_str().to_owned());
            let names = call.services.iter().map(|share| match call.origins.is_empty() {
                true => share.service(),
                false => rule.name.as_str(),
            });
            names.map(|name| one(name, own.clone(), call.rpc.clone(), detail.clone())).collect()
        }
        Outcome::Redirect(redirect) => {
            let told = format!("goes to `{}`", redirect.to.as_str());
            detail.insert("responses".to_owned(), json!({redirect.status.to_string(): {"description": told}}));
            vec![one(GATEWAY, path.clone(), None, detail)]
        }
        Outcome::Respond(respond) => {
            let kind = respond.content_type.split(';').next().unwrap_or("text/plain").trim();
            let answer = json!({"description": "the gateway's own answer", "content": {kind: {}}});
            detail.insert("responses".to_owned(), json!({respond.status.to_string(): answer}));
            vec![one(GATEWAY, path.clone(), None, detail)]
        }
        Outcome::Micro(_) => Vec::new(), // every service's every method: those are told by the services
    }
}

impl Anchor {
    /// Where clients ask for this path of a service, if it is this route that leads there.
    pub fn leads(&self, service: &str, method: &str, own_path: &str) -> Option<String> {
        if self.service != service || self.rpc.is_some() {
            return None;
        }
        if method != ANY && !self.methods.is_empty() && !self.methods.iter().any(|one| one == method) {
            return None;
        }
        match (self.own.strip_suffix("/*"), self.path.strip_suffix("/*")) {
            (Some(own), Some(path)) => {
                let rest = own_path.strip_prefix(own).filter(|rest| rest.is_empty() || rest.starts_with('/'))?;
                Some(format!("{path}{rest}")).filter(|path| path.starts_with('/'))
            }
            _ => (shape(&self.own) == shape(own_path)).then(|| self.path.clone()),
        }
    }

    /// Whether it calls this method by RPC.
    pub fn calls(&self, service: &str, method: &str) -> bool {
        let endpoint = |name: &str| MethodName::parse(name).map(|name| name.endpoint()).ok();
        self.service == service && self.rpc.as_deref().is_some_and(|rpc| endpoint(rpc) == endpoint(method))
    }

    /// What the config says of it.
    pub fn detail(&self) -> &Map<String, Value> {
        &self.detail
    }

    /// As clients ask; what is open has a name in braces for the rest.
    pub fn address(&self) -> &str {
        &self.shown
    }

    /// The methods it takes.
    pub fn methods(&self) -> Vec<&str> {
        if self.methods.is_empty() { vec![ANY] } else { self.methods.iter().map(String::as_str).collect() }
    }

    /// Adds what nobody said more of.
    pub fn add_to(&self, document: &mut Document) {
        let path = self.address().to_owned();
        let is_open = self.path.ends_with("/*");
        let before = self.path.trim_end_matches('*');
        let is_told = |operation: &Operation| {
            operation.is_routed
                && match is_open {
                    true => operation.path.starts_with(before),
                    false => shape(&operation.path) == shape(&path),
                }
        };
        let told: Vec<String> =
            document.of_service(&self.service).filter(|one| is_told(one)).map(|one| one.method.clone()).collect();
        if self.methods.is_empty() && !told.is_empty() {
            return;
        }
        for method in self.methods().into_iter().filter(|method| is_open || !told.iter().any(|one| one == method)) {
            let mut operation = Operation::new(&self.service, method, &path, Source::Config);
            (operation.is_routed, operation.detail, operation.rpc) = (true, self.detail.clone(), self.rpc.clone());
            operation.own_path.clone_from(&self.own);
            if is_open {
                operation.detail.insert("description".to_owned(), "this path and all below it".into());
            }
            document.add(operation);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anchor(service: &str, methods: &[&str], path: &str, own: &str) -> Anchor {
        Anchor {
            service: service.into(),
            methods: methods.iter().map(|method| (*method).to_owned()).collect(),
            path: path.into(),
            shown: path.strip_suffix("/*").map_or_else(|| path.into(), |before| format!("{before}/{{rest}}")),
            own: own.into(),
            rpc: None,
            detail: Map::new(),
        }
    }

    #[test]
    fn a_route_leads_to_a_services_path() {
        let action = anchor("user", &["get"], "/api/user/one", "/users/{id}");
        assert_eq!(action.leads("user", "get", "/users/{name}").as_deref(), Some("/api/user/one"));
        assert_eq!(action.leads("user", "post", "/users/{id}"), None);
        assert_eq!(action.leads("shop", "get", "/users/{id}"), None);
        let open = anchor("shop", &[], "/goods/*", "/v2/*");
        assert_eq!(open.leads("shop", "put", "/v2/items/{id}").as_deref(), Some("/goods/items/{id}"));
        assert_eq!(open.leads("shop", "put", "/v22/items"), None);
        assert_eq!(anchor("shop", &[], "/*", "/*").leads("shop", "get", "/a").as_deref(), Some("/a"));
    }

    #[test]
    fn a_route_of_which_nobody_says_more_stands_for_itself() {
        let mut document = Document::default();
        let mut known = Operation::new("shop", "get", "/goods/items", Source::Served);
        known.is_routed = true;
        document.add(known);
        anchor("shop", &[], "/goods/*", "/*").add_to(&mut document);
        assert_eq!(document.operations().count(), 1, "all that is known of it stands below it");
        anchor("shop", &["post"], "/other/*", "/*").add_to(&mut document);
        anchor("user", &[], "/api/user/login", "/login").add_to(&mut document);
        assert!(document.operation("post /other/{rest}").is_some());
        assert!(document.operation("any /api/user/login").is_some_and(|one| one.is_routed));
    }
}
