//! Methods by RPC, as the nodes tell them in the registry and by reflection, or a file of descriptors does.

use serde_json::{Value, json};

use super::configured::Anchor;
use super::document::{Document, Operation, Source};
use super::import::Import;
use crate::dashboard::Method;

/// Puts the methods of a service into the document: each under its own path, and under those of the actions that call it.
pub fn merge(document: &mut Document, service: &str, methods: &[Method], anchors: &[Anchor]) {
    for method in methods {
        let bodies = method.messages.as_ref().map(|messages| {
            let components = json!({"schemas": messages.all});
            let import = Import::new(service, false, &components);
            for (kind, values) in import.components(&components) {
                document.components.entry(kind).or_default().extend(values);
            }
            let named = |name: &str| json!({"$ref": format!("#/components/schemas/{}", import.name(name))});
            (named(&messages.request), named(&messages.response))
        });
        let streams = match method.streams {
            (false, false) => "",
            (true, false) => "the client sends a stream of messages",
            (false, true) => "the answer is a stream of messages",
            (true, true) => "both sides send a stream of messages",
        };
        let describe = |operation: &mut Operation, kind: &str| {
            let media = |schema: Option<&Value>| json!({kind: schema.map_or_else(|| json!({}), |schema| json!({"schema": schema}))});
            let (request, response) = (bodies.as_ref().map(|both| &both.0), bodies.as_ref().map(|both| &both.1));
            operation.rpc = Some(method.path.clone());
            operation.detail.insert("summary".to_owned(), method.name.clone().into());
            if !streams.is_empty() {
                operation.detail.insert("description".to_owned(), streams.into());
            }
            operation.detail.insert("requestBody".to_owned(), json!({"content": media(request)}));
            let answer = json!({"description": "the method's message", "content": media(response)});
            operation.detail.insert("responses".to_owned(), json!({"200": answer}));
        };
        let mut own = Operation::new(service, "post", &method.path, Source::Served);
        own.is_routed = true; // the gateway's RPC port takes every service's methods
        describe(&mut own, "application/grpc+json");
        document.add(own);
        for anchor in anchors.iter().filter(|anchor| anchor.calls(service, &method.name)) {
            let takes_post = |one: &&str| matches!(*one, "post" | super::document::ANY);
            for verb in anchor.methods().into_iter().filter(takes_post) {
                let mut operation = Operation::new(service, verb, anchor.address(), Source::Config);
                operation.sources.insert(Source::Served);
                (operation.is_routed, operation.detail) = (true, anchor.detail().clone());
                operation.own_path.clone_from(&method.path);
                describe(&mut operation, "application/json");
                document.add(operation);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::rpc::schema::MessageSchemas;

    #[test]
    fn a_method_has_its_messages_under_its_services_name() {
        let all = BTreeMap::from([(
            "g.Req".to_owned(),
            json!({"properties": {"n": {"$ref": "#/components/schemas/g.Req"}}}),
        )]);
        let messages = MessageSchemas { request: "g.Req".into(), response: "g.Req".into(), all };
        let method = Method {
            path: "/g.Say/Hello".into(),
            name: "Say.Hello".into(),
            streams: (false, true),
            messages: Some(messages),
        };
        let mut document = Document::default();
        merge(&mut document, "greeter", &[method], &[]);
        let hello = document.operation("post /g.Say/Hello").expect("it");
        let (kind, schema) = hello.body_in(&document).expect("a body");
        assert_eq!((kind, &schema["$ref"]), ("application/grpc+json", &json!("#/components/schemas/greeter.g.Req")));
        assert_eq!(document.resolve(schema)["properties"]["n"], *schema);
        assert!(hello.text("description").contains("stream"));
    }
}
